"""One function a figure: tidy table in, matplotlib figure and CSV out."""
