"""Reads tensors for tasks: each once where memory allows, as maps that `diagnose` measures."""
