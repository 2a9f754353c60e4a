"""The typed configuration: its keys, defaults and presets, and its YAML reader."""
