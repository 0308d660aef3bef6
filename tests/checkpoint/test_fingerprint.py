"""What the fingerprint sees, and how little it reads."""

from __future__ import annotations

import math
import random

import pytest
import torch

from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict
from flagscope.checkpoint.fingerprint import SAMPLE_BYTES
from flagscope.checkpoint.indexing import boxes, index_shape, resolved_index


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"w": torch.randn(100, 300, generator=generator), "b": torch.zeros(100)}


def fingerprint(tensors) -> str:
    return checkpoint_fingerprint(from_state_dict(tensors))


@pytest.mark.parametrize("position", [0, 1023, 15000, 29999])
def test_a_change_in_a_sampled_place_shows(position):
    changed = state()
    value = changed["w"].view(-1)[position]
    changed["w"].view(-1)[position] = torch.nextafter(value, torch.tensor(9.0))
    assert fingerprint(changed) != fingerprint(state())


def test_a_change_elsewhere_does_not_show_as_documented():
    changed = state()
    changed["w"].view(-1)[5000] += 1
    assert fingerprint(changed) == fingerprint(state())


def test_names_shapes_and_types_show():
    base = state()
    other = [
        {"v": base["w"], "b": base["b"]},
        {"w": base["w"].reshape(300, 100), "b": base["b"]},
        {"w": base["w"], "b": base["b"].int()},
        {"w": base["w"]},
        {**base, "c": torch.zeros(0)},
        {**base, "c": torch.zeros(0, 1)},
        {"w": base["b"], "b": base["w"]},
    ]
    prints = [fingerprint(base), *map(fingerprint, other)]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 32 and int(text, 16) for text in prints)


def test_memory_layout_and_order_do_not_show():
    base = state()
    turned = {"b": base["b"], "w": base["w"].T.contiguous().T}
    assert not turned["w"].is_contiguous()
    assert fingerprint(turned) == fingerprint(base)


def test_names_cannot_imitate_each_other():
    empty = torch.zeros(0)
    assert fingerprint({'a", "float32", [0]]["b': empty}) != fingerprint({"a": empty, "b": empty})


def test_boxes_are_the_range_in_row_major_order():
    rng = random.Random(1)
    for _ in range(300):
        shape = tuple(rng.randint(1, 7) for _ in range(rng.randint(1, 4)))
        count = math.prod(shape)
        start = rng.randrange(count)
        stop = rng.randint(start + 1, count)
        numbers = torch.arange(count).reshape(shape)
        found = list(boxes(shape, start, stop))
        assert torch.cat([numbers[box].reshape(-1) for box in found]).equal(
            torch.arange(start, stop)
        )
        assert len(found) <= 2 * len(shape) + 1


def test_at_most_three_windows_of_a_tensor_are_read(monkeypatch):
    checkpoint = from_state_dict({"w": torch.zeros(3, 5000, 7), "k": torch.zeros(50, 50, 3, 3)})
    read = {"w": 0, "k": 0}
    original = checkpoint.read

    def counted(name, index=None):
        shape = checkpoint.tensors[name].shape
        read[name] += 4 * math.prod(index_shape(resolved_index(index, shape, tensor=name), shape))
        return original(name, index)

    monkeypatch.setattr(checkpoint, "read", counted)
    checkpoint_fingerprint(checkpoint)
    assert read == {"w": 3 * SAMPLE_BYTES, "k": 3 * SAMPLE_BYTES}
