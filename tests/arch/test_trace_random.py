"""Random programs: every freedom that a trace claims keeps the function."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional

from arch.contract import drawn, movement, randomise
from flagscope.arch.trace import trace_graph
from flagscope.reparameterize import applicable, apply

OPERATIONS = ("map", "map", "map", "act", "act", "add", "mul", "norm", "scale", "shift", "gate",
              "self", "vector", "again")  # fmt: skip
ACTIVATIONS = ("relu", "tanh", "gelu", "leaky_relu", "silu")
WIDTH = 7


class Random(nn.Module):
    """Maps, activations, norms, sums and products of any earlier values."""

    def __init__(self, seed, *, images):
        super().__init__()
        draw = random.Random(seed)
        self.plan, self.parts, self.images = [], nn.ModuleList(), images
        for step in range(draw.randint(5, 11)):
            kind, near = draw.choice(OPERATIONS), draw.randint(max(0, step - 2), step)
            extra = draw.randint(0, step)
            if kind == "map":
                self.parts.append(self._map(WIDTH, bias=draw.random() < 0.5))
                extra = len(self.parts) - 1
            elif kind == "norm":
                norm = nn.BatchNorm2d if images else draw.choice((nn.BatchNorm1d, nn.LayerNorm))
                self.parts.append(norm(WIDTH))
                extra = len(self.parts) - 1
            elif kind == "again" and self.parts:
                kind, extra = "map", 0
            elif kind == "act":
                extra = draw.choice(ACTIVATIONS)
            self.plan.append((kind, near, extra))
        self.parts.append(self._map(4, bias=True))
        self.plan.append(("map", len(self.plan), len(self.parts) - 1))

    def _map(self, outputs, *, bias):
        if self.images:
            return nn.Conv2d(WIDTH, outputs, 3, padding=1, bias=bias)
        return nn.Linear(WIDTH, outputs, bias=bias)

    def forward(self, x):
        values = [x]
        for kind, at, extra in self.plan:
            values.append(self._value(kind, values[at], extra, values))
        return values[-1]

    def _value(self, kind, y, extra, values):
        if kind in ("map", "norm"):
            return self.parts[extra](y)
        if kind == "act":
            return getattr(functional, extra)(y)
        if kind == "vector":
            numbers = torch.arange(1.0, WIDTH + 1, dtype=y.dtype)
            return y * numbers.view(1, -1, *[1] * (y.ndim - 2))
        changed = {"add": y + values[extra], "mul": y * values[extra], "scale": y * 0.7,
                   "shift": y + 0.3, "gate": y * torch.sigmoid(y.mean(1, keepdim=True)),
                   "self": y + functional.relu(y), "again": y}  # fmt: skip
        return changed[kind]


@pytest.mark.parametrize("images", [True, False])
def test_claims_hold_in_random_programs(images):
    claims = 0
    for seed in range(10):
        module = randomise(Random(seed, images=images), seed)
        generator = torch.Generator().manual_seed(seed)
        shape = (3, WIDTH, 5, 5) if images else (3, WIDTH)
        given = torch.randn(shape, generator=generator, dtype=torch.float64)
        state = dict(module.state_dict())
        graph = trace_graph(module, example_inputs=given)
        with torch.no_grad():
            reference = module(given)
            for number, symmetry in enumerate(applicable(graph)):
                changed = apply(state, drawn(symmetry, number)).state
                error = movement(torch.func.functional_call(module, changed, given), reference)
                assert error < 1e-10, (seed, module.plan, symmetry.name)
                claims += 1
    assert claims >= 3
