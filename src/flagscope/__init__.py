"""Alignment of a network's layers and heads, read from its weights alone."""
