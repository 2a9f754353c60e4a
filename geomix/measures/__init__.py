"""Pure functions on arrays: cosines, subspaces, intervals, verdicts. They know no run, no file."""
