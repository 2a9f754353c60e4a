"""The typed configuration: its keys, defaults and presets, and how it is read from YAML."""
