"""The experiment `kernel-vs-read`."""

from flagscope.lab.experiments.kernel_vs_read.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
