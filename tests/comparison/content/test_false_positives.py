"""Independent models are never called related: 240 pairs of several sizes and initialisations."""

from __future__ import annotations

import pytest
import torch

from flagscope.checkpoint import from_state_dict
from flagscope.comparison.content.compared import compared_content

PAIRS = 30


def drawn(kind, shape, generator):
    normal = torch.randn(shape, generator=generator)
    if kind == "normal":
        return 0.02 * normal
    if kind == "uniform":
        return (2 * torch.rand(shape, generator=generator) - 1) / shape[-1] ** 0.5
    if kind == "orthogonal":
        tall = normal if shape[0] >= shape[1] else normal.T
        q = torch.linalg.qr(tall)[0]
        return q if shape[0] >= shape[1] else q.T
    if kind == "heavy":
        return normal / torch.rand(shape, generator=generator).sqrt().clamp_min(1e-3)
    if kind == "scaled rows":  # a profile that both models have, as frequent words give
        return normal * torch.linspace(0.1, 3, shape[0])[:, None]
    if kind == "one sign":
        return normal.abs()
    if kind == "near identity":
        return torch.eye(*shape) + 0.05 * normal
    return torch.where(normal.abs() > 1.6, normal, 0.0)  # sparse


KINDS = ("normal", "uniform", "orthogonal", "heavy", "scaled rows", "one sign", "near identity",
         "sparse")  # fmt: skip


def model(kind, size, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    state = {"embed_tokens.weight": drawn(kind, (2 * size, size), generator)}
    for layer in range(3):
        for name, shape in {"attn.q": (size, size), "attn.o": (size, size),
                            "mlp.up": (2 * size, size)}.items():  # fmt: skip
            state[f"layers.{layer}.{name}.weight"] = drawn(kind, shape, generator)
        state[f"layers.{layer}.norm.weight"] = 1 + 0.02 * torch.randn(size, generator=generator)
    return {name: tensor.to(dtype) for name, tensor in state.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_strangers_are_never_related(kind):
    found = []
    for pair in range(PAIRS):
        size = (16, 32, 64)[pair % 3]
        dtype = (torch.float32, torch.bfloat16)[pair % 2]
        a, b = (model(kind, size, 2 * pair + side + 1000, dtype) for side in (0, 1))
        record = compared_content(from_state_dict(a), from_state_dict(b))
        found.append(record.relation)
        assert not any(match.like is not None for m in record.layers for match in m.of_b)
    assert set(found) <= {"unrelated", "unclear"}
    if kind == "one sign":  # the signs of such matrices say nothing, so that they stay untested
        assert set(found) == {"unclear"}
    else:
        assert found.count("unrelated") >= PAIRS * 0.6


@pytest.mark.parametrize("kind", ["normal", "uniform", "sparse"])
@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_what_grew_from_one_model_is_related(kind, size):
    a, other = model(kind, 64, 1, torch.float32), model(kind, 64, 2, torch.float32)
    b = {name: tensor + size * other[name] for name, tensor in a.items()}
    assert compared_content(from_state_dict(a), from_state_dict(b)).relation == "related"
