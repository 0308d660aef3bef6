"""Checkpoints derived from another one: part of it, tensors joined, renamed or computed."""
