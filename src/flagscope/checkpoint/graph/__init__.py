"""Channels followed through the graph that a file holds, whichever framework wrote it."""
