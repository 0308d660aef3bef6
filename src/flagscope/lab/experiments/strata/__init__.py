"""The experiment `strata`."""

from flagscope.lab.experiments.strata.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
