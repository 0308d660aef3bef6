"""The experiment `lead-lag`."""

from flagscope.lab.experiments.lead_lag.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
