"""Damaged and hostile files of every format, given to the command line; see `__main__`."""
