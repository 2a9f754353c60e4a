"""Files, HDF5, errors, terminal and signals: what every other package may use."""
