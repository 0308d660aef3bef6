"""Rates of a series of checkpoints in decay time, and the rotation of weights under AdamW."""

from flagscope.series.rates.fit import RateFit, fitted_rate
from flagscope.series.rates.learning_rates import LearningRates, known_rates, logged_rates
from flagscope.series.rates.optimisers import (
    SavedGroup,
    SavedOptimiser,
    read_optimiser,
    schedule_from_optimisers,
)
from flagscope.series.rates.rates_of import rates_of
from flagscope.series.rates.rotation import Rotation, equilibrium_cosine, rotations
from flagscope.series.rates.schedule import DecayTime, GroupSchedule, Schedule, given_schedule
from flagscope.series.rates.trainer import trainer_schedule
from flagscope.series.rates.training_arguments import TrainingArguments, read_training_arguments
from flagscope.series.rates.undecayed import decayed_by_trainer

__all__ = [
    "DecayTime",
    "GroupSchedule",
    "LearningRates",
    "RateFit",
    "Rotation",
    "SavedGroup",
    "SavedOptimiser",
    "Schedule",
    "TrainingArguments",
    "decayed_by_trainer",
    "equilibrium_cosine",
    "fitted_rate",
    "given_schedule",
    "known_rates",
    "logged_rates",
    "rates_of",
    "read_optimiser",
    "read_training_arguments",
    "rotations",
    "schedule_from_optimisers",
    "trainer_schedule",
]
