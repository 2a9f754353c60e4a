"""The run directory: its layout, its locks, and its histories. No torch."""
