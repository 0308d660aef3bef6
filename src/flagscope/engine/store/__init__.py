"""Keeps the results of tasks on disk, so that a scan that was killed resumes."""
