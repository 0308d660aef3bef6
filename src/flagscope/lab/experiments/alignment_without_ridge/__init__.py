"""The experiment `alignment-without-ridge`."""

from flagscope.lab.experiments.alignment_without_ridge.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
