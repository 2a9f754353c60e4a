"""One function a figure: a tidy table in, a matplotlib figure and its CSV out. Knows no run."""
