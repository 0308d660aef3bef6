"""Runs tasks in threads or on an executor, and collects their outcomes."""
