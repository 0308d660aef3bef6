"""Stores results of tasks on disk, so that a killed scan can resume."""
