"""Changes of a network's weights that leave its function as it is, applied through the mapping.

A diagnostic that such a change moves says something about the weights alone, not about what the
network computes; a mapping through which such changes hold is proven by function.
"""

from flagscope.reparameterize.apply import Reparameterized, apply
from flagscope.reparameterize.balanced import balancing_change
from flagscope.reparameterize.change import Change
from flagscope.reparameterize.draw import random_change
from flagscope.reparameterize.symmetry import Kind, Symmetry, applicable

__all__ = [
    "Change",
    "Kind",
    "Reparameterized",
    "Symmetry",
    "applicable",
    "apply",
    "balancing_change",
    "random_change",
]
