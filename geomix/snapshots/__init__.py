"""The format of recorded snapshots: written, read, checked and exported. No torch."""
