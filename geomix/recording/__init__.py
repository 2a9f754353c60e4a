"""The observer of a training that writes snapshots."""
