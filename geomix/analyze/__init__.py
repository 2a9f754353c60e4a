"""One file a command: open the run, call the measures, save, return a table."""
