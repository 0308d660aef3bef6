"""The experiment `invariant-ring`."""

from flagscope.lab.experiments.invariant_ring.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
