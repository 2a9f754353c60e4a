"""Observer of a training that writes snapshots."""
