"""The command line: data on stdout, progress and errors on stderr."""

from flagscope.cli.main import main

__all__ = ["main"]
