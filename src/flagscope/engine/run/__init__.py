"""Runs tasks: in threads, on an executor, and what comes of them."""
