"""The experiment `attractor`."""

from flagscope.lab.experiments.attractor.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
