"""Rows of data files in any supported format, read within bounds of memory."""
