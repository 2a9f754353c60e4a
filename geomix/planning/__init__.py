"""The dry run: what a configuration would train, and its cost in memory, disk and time."""
