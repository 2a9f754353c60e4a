"""The format of recorded snapshots: writing, reading, validation and export. No torch."""
