"""A look at one tensor counts what was planted in it, in every dtype and in small blocks."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from flagscope.checkpoint import Checkpoint, from_state_dict
from flagscope.engine.cache.stored_tensor import read_piece
from flagscope.engine.health import block_scan, look_at
from flagscope.engine.health.look_at import tensor_health
from flagscope.engine.health.tensor_health import TensorHealth, unpacked
from flagscope.engine.plan.look import Look, LookKind
from flagscope.engine.plan.pieces import Piece

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
          torch.float8_e5m2)  # fmt: skip
ROWS, COLUMNS = 60, 48


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Away from zero, which float8 would round to.
    return torch.randn(shape, generator=generator).sign() + torch.randn(shape, generator=generator)


def looked(
    state: dict[str, Tensor] | Tensor, *, kind: LookKind = "matrix", cuts: tuple[int, ...] = ()
) -> TensorHealth:
    """The health of the tensor "w", read in blocks that end at these rows."""
    state = {"w": state} if isinstance(state, Tensor) else state
    checkpoint: Checkpoint = from_state_dict(state)
    shape = checkpoint.tensors["w"].shape
    ends = pairwise([0, *cuts, shape[0] if shape else 1])
    look = Look("w", tuple(shape), kind, tuple(Piece("w", a, b) for a, b in ends))
    return tensor_health(look, lambda piece: read_piece(checkpoint, piece))


def rows_of(health: TensorHealth, count: int) -> list[int]:
    return np.flatnonzero(unpacked(health.zero_rows, count)).tolist()


def columns_of(health: TensorHealth, count: int) -> list[int]:
    return np.flatnonzero(unpacked(health.zero_columns, count)).tolist()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two rows, so that copies lie in different ones."""
    monkeypatch.setattr(look_at, "BLOCK_ENTRIES", 2 * COLUMNS)


def planted() -> Tensor:
    w = drawn(ROWS, COLUMNS)
    w[7] = w[40] = 0
    w[:, 3] = w[:, 47] = 0
    w[50] = w[2]
    w[51] = w[2]
    w[20] = w[19]
    w[:, 30] = w[:, 5]
    return w


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cuts", [(), (1,), (3, 41, 59)])
@pytest.mark.usefixtures("small_blocks")
def test_what_was_planted_is_found_in_every_dtype(dtype: torch.dtype, cuts: tuple[int, ...]):
    health = looked(planted().to(dtype), cuts=cuts)
    assert rows_of(health, ROWS) == [7, 40]
    assert columns_of(health, COLUMNS) == [3, 47]
    assert (health.copied_rows.count, health.copied_columns.count) == (3, 1)
    assert health.copied_rows.pairs == [(20, 19), (50, 2), (51, 2)]
    assert health.copied_columns.pairs == [(30, 5)]
    assert (health.nan, health.infinite, health.constant) == (0, 0, None)
    assert health.entries == ROWS * COLUMNS
    assert health.zeros == int((planted().to(dtype).float() == 0).sum())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_random_tensor_shows_nothing(dtype: torch.dtype):
    health = looked(drawn(ROWS, COLUMNS, seed=1).to(dtype))
    assert (health.zero_rows, health.zero_columns) == ("", "")
    assert (health.copied_rows.count, health.copied_columns.count) == (0, 0)
    assert (health.nan, health.infinite, health.constant) == (0, 0, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_signs_of_zeros_make_no_difference_and_signs_of_numbers_do(dtype: torch.dtype):
    w = drawn(8, 32).to(dtype)
    w[1] = w[0]
    w[0, 4], w[1, 4] = 0.0, -0.0
    w[3] = -w[2]
    w[5] = -0.0
    health = looked(w)
    assert health.copied_rows.pairs == [(1, 0)]
    assert rows_of(health, 8) == [5]


def test_one_bit_makes_a_row_another_one():
    w = drawn(6, 32)
    w[4] = w[1]
    w[4, 31] = torch.nextafter(w[4, 31], torch.tensor(math.inf))
    assert looked(w).copied_rows.count == 0


@pytest.mark.usefixtures("small_blocks")
def test_equal_hashes_of_unequal_rows_are_looked_at_again(monkeypatch: pytest.MonkeyPatch):
    # All coefficients alike: rows and columns with the same entries in another order collide.
    monkeypatch.setattr(
        block_scan, "coefficients", lambda _, count: torch.ones(count, dtype=torch.int32)
    )
    w = drawn(ROWS, COLUMNS)
    w[9] = w[8].flip(0)
    w[30] = w[8]
    health = looked(w)
    assert health.copied_rows.pairs == [(30, 8)]
    assert looked(w.mT.contiguous()).copied_columns.pairs == [(30, 8)]


@pytest.mark.parametrize(("value", "counts"), [(math.nan, (2, 0)), (math.inf, (0, 2)),
                                               (-math.inf, (0, 2))])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_numbers_that_are_not_finite_are_counted(dtype, value, counts):
    w = drawn(ROWS, COLUMNS)
    w[3, 4] = w[59, 0] = value
    health = looked(w.to(dtype))
    assert (health.nan, health.infinite) == counts
    assert health.constant is None


def test_a_sum_beyond_the_range_is_not_taken_for_infinity():
    w = torch.full((4, 32), 3e38)
    w[1, 1] = 1.0
    health = looked(w)
    assert (health.nan, health.infinite) == (0, 0)


@pytest.mark.parametrize("value", [0.0, 0.25, -1.0])
def test_one_value_alone_is_constant(value: float):
    health = looked(torch.full((5, 40), value))
    assert health.constant == value
    other = torch.full((5, 40), value)
    other[4, 39] += 1
    assert looked(other).constant is None


@pytest.mark.usefixtures("small_blocks")
def test_rows_are_those_of_each_matrix_of_a_stack():
    w = drawn(3, 20, 24)
    w[0, 4] = 0
    w[1, 9] = w[1, 3]
    w[2, 9] = w[1, 3]  # another matrix: not a copy
    w[2, :, 7] = 0
    for cuts in ((), (1,), (1, 2)):
        health = looked(w, kind="stack", cuts=cuts)
        assert rows_of(health, 60) == [4]
        assert columns_of(health, 72) == [2 * 24 + 7]
        assert health.copied_rows.pairs == [(29, 23)]


def test_a_kernel_belongs_to_rows_and_columns():
    w = drawn(12, 10, 3, 3)
    w[5] = 0
    w[:, 2] = 0
    w[8] = w[1]
    w[:, 9] = w[:, 0]
    w[7, :, 1, 1] = 0  # only the middle of the kernel
    health = looked(w)
    assert (rows_of(health, 12), columns_of(health, 10)) == ([5], [2])
    assert (health.copied_rows.pairs, health.copied_columns.pairs) == ([(8, 1)], [(9, 0)])


def test_short_rows_are_not_compared():
    w = torch.ones(40, 15)
    w[:, 0] = torch.arange(40)
    w[3], w[4] = w[1], w[2]
    health = looked(w)
    assert health.copied_rows.count == 0
    assert health.copied_columns.count == 13  # of 40 entries each


def test_a_vector_shows_its_zeros_alone():
    health = looked(torch.tensor([0.0, 1.0, 0.0]), kind="vector")
    assert (rows_of(health, 3), health.zeros, health.constant) == ([0, 2], 2, None)
    assert looked(torch.zeros(4), kind="vector").constant == 0
    assert looked(torch.tensor(2.0), kind="vector").entries == 1


def test_scaled_integers_are_compared_as_the_numbers_that_they_stand_for():
    integers = torch.randint(-100, 100, (6, 32), generator=torch.Generator().manual_seed(3))
    integers[1] = integers[0] // 2 * 2
    integers[2] = integers[1] // 2
    integers[4] = 0
    scale = torch.ones(6, 1)
    scale[2] = 2.0  # the third row stands for the second
    state = {"w": integers.to(torch.int8), "w_scale": scale}
    health = looked(state)
    assert health.copied_rows.pairs == [(2, 1)]
    assert rows_of(health, 6) == [4]


def test_scaled_float8_is_compared_block_by_block_of_its_scale():
    stored = drawn(256, 128).to(torch.float8_e4m3fn)
    stored.view(torch.uint8)[200] = stored.view(torch.uint8)[3]
    equal = {"w": stored, "w_scale_inv": torch.tensor([[0.5], [0.5]])}
    other = {"w": stored, "w_scale_inv": torch.tensor([[0.5], [3.0]])}
    assert looked(equal).copied_rows.pairs == [(200, 3)]
    assert looked(other).copied_rows.count == 0
