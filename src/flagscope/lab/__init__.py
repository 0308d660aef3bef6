"""The laboratory: experiments that test the claims of the theory, one folder for each claim."""

from flagscope.lab.experiment import (
    Cell,
    Estimate,
    Experiment,
    Finding,
    Measured,
    Options,
    Prediction,
    Verdict,
    beyond_the_paper,
    overall_verdict,
)
from flagscope.lab.registry import experiment_names, load_experiment
from flagscope.lab.run import LabResult, run_lab

__all__ = [
    "Cell",
    "Estimate",
    "Experiment",
    "Finding",
    "LabResult",
    "Measured",
    "Options",
    "Prediction",
    "Verdict",
    "beyond_the_paper",
    "experiment_names",
    "load_experiment",
    "overall_verdict",
    "run_lab",
]
