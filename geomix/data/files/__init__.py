"""Rows of data files, whatever their format, read within bounds of memory."""
