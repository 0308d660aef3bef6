"""Tiny models, their graphs, and how to run them in float64."""

import torch

from arch.cases import build, inputs
from arch.contract import Float64, movement
from flagscope.arch import build_graph


class Case:
    """A model with its graph, state and reference output."""

    def __init__(self, name, *, made=None, family=None):
        self.model, self.config = made or build(name)[:2]
        self.given = inputs(name)
        self.state = dict(self.model.state_dict())
        self.graph = build_graph(
            {name: tuple(one.shape) for name, one in self.state.items()}, self.config, family=family
        )
        self.reference = self.run(self.state)

    def run(self, state):
        with torch.no_grad(), Float64():
            return torch.func.functional_call(
                self.model, state, kwargs=self.given, tie_weights=False
            )[0]

    def movement(self, state):
        return movement(self.run(state), self.reference)
