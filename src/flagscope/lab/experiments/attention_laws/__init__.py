"""The experiment `attention-laws`."""

from flagscope.lab.experiments.attention_laws.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
