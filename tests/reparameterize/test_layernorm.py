"""What LayerNorm leaves free besides the changes inside pairs: which numbers of a scan it moves."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from arch.contract import Float64
from flagscope import scan
from flagscope.lab.experiments.invariance.rewriting import OBSERVABLES, movement
from flagscope.records import ScanResult

transformers = pytest.importorskip("transformers")

State = dict[str, Tensor]
PAGE = Path(__file__).parents[2] / "docs/invariance.md"
D, LAYERS = 32, range(3)
ROUND_OFF, MOVED = 1e-7, 1e-3
RANKS = {"rank_write", "rank_read", "kernel_intersection", "product_rank", "intersection_exact"}
# Dimensions counted at dominant spaces: a whole number may move, or not.
COUNTED = {"intersection_beyond_chance"}
POSITION = {
    "product_spectrum", "product_effective_rank", "commutator_ratio", "gram_correlation",
    "commutation_defect", "imbalance", "overlap_ratio", "flag_defect",
}  # fmt: skip
NUMBERS = (*OBSERVABLES, "product_spectrum")


class Network:
    """A small transformer with random weights, in float64."""

    def __init__(self, model: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = model.double().eval()
        self.config = model.config.to_dict()
        self.generator = generator
        self.state: State = {}
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                self.state[name] = value
            elif value.ndim > 1:
                drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
                self.state[name] = 0.3 * drawn
            else:
                self.state[name] = 0.5 + self.uniform(*value.shape)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64)

    def outputs(self, state: State) -> Tensor:
        tokens = torch.arange(8)[None]
        with torch.no_grad(), Float64():
            return torch.func.functional_call(
                self.model, state, kwargs={"input_ids": tokens}, tie_weights=False
            )[0]

    def error(self, state: State) -> float:
        before = self.outputs(self.state)
        return float((self.outputs(state) - before).norm() / before.norm())

    def scanned(self, state: State, fold_norms: Any) -> ScanResult:
        return scan(
            state, config=self.config, rank="participation", fold_norms=fold_norms, workers=1
        ).result

    def moved(self, state: State, fold_norms: str = "auto") -> dict[str, dict[str, float]]:
        """How far each number moved at most, by kind of pair, and by space of heads."""
        before, after = (self.scanned(one, fold_norms) for one in (self.state, state))
        found: dict[str, dict[str, float]] = {}
        for old, new in zip(before.pairs, after.pairs, strict=True):
            here = found.setdefault(old.kind, {})
            for name in NUMBERS:
                here[name] = max(here.get(name, 0.0), movement(old, new, name) or 0.0)
        for old, new in zip(before.heads, after.heads, strict=True):
            here = found.setdefault(f"heads {old.space}", {})
            value = movement(old, new, "overlap_ratio") or 0.0
            here["overlap_ratio"] = max(here.get("overlap_ratio", 0.0), value)
        return found


def pre_norm() -> Network:
    return Network(
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                n_layer=3, n_embd=D, n_head=4, vocab_size=40, n_positions=16, bos_token_id=0,
                eos_token_id=0, tie_word_embeddings=False, attn_implementation="eager",
            )
        )
    )  # fmt: skip


def post_norm() -> Network:
    return Network(
        transformers.BertModel(
            transformers.BertConfig(
                num_hidden_layers=3, hidden_size=D, num_attention_heads=4, intermediate_size=64,
                vocab_size=40, max_position_embeddings=16, attn_implementation="eager",
            ),
            add_pooling_layer=False,
        )
    )  # fmt: skip


def gains_moved(network: Network) -> State:
    """Part of each gain, and of the bias, taken out of a norm and put into the map behind it."""
    state = dict(network.state)
    for layer in LAYERS:
        block = f"transformer.h.{layer}"
        for norm, read in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
            factor = 0.5 + 1.5 * network.uniform(D)
            for part in ("weight", "bias"):
                state[f"{block}.{norm}.{part}"] = state[f"{block}.{norm}.{part}"] / factor
            name = f"{block}.{read}.weight"  # GPT-2 stores the transpose
            state[name] = state[name] * factor[:, None]
    return state


def means_added(network: Network) -> State:
    """1 vᵀ added to each map that writes: the same number to every coordinate of the sum."""
    state = dict(network.state)
    stored = (
        [f"transformer.h.{i}.{block}.c_proj.weight" for i in LAYERS for block in ("attn", "mlp")],
        [f"encoder.layer.{i}.{block}.dense.weight"
         for i in LAYERS for block in ("attention.output", "output")],
    )  # fmt: skip
    for name in stored[0]:
        if name in state:
            state[name] = state[name] + network.uniform(state[name].shape[0])[:, None]
    for name in stored[1]:
        if name in state:
            state[name] = state[name] + network.uniform(state[name].shape[1])
    return state


def held(moved: dict[str, float], *, moves: set[str]) -> None:
    """Those and no others move; counts of dimensions may."""
    for name, value in moved.items():
        if name not in COUNTED:
            assert (value > MOVED) if name in moves else (value <= ROUND_OFF), (name, value)


@pytest.mark.parametrize("fold_norms", ["auto", "all", "none"])
def test_a_gain_moved_into_the_map_behind_moves_the_numbers_of_pairs(fold_norms: str) -> None:
    network = pre_norm()
    state = gains_moved(network)
    assert network.error(state) < 1e-12
    moved = network.moved(state, fold_norms)
    write, read = {"effective_rank_write"}, {"effective_rank_read"}
    held(moved["qk"], moves=POSITION | write | read)
    held(moved["ov"], moves=POSITION | write)
    held(moved["mlp"], moves=POSITION | write)
    # The stream's pairs have the gain folded in unless norms are left as stored.
    held(moved["residual"], moves=POSITION | read if fold_norms == "none" else set())
    for space in "qkv":
        held(moved[f"heads {space}"], moves=set() if fold_norms == "all" else {"overlap_ratio"})
    held(moved["heads o"], moves=set())


def test_a_gain_cannot_be_moved_where_the_sum_takes_what_the_norm_gives() -> None:
    network = post_norm()
    state = dict(network.state)
    for layer in LAYERS:
        block = f"encoder.layer.{layer}"
        factor = 0.5 + 1.5 * network.uniform(D)
        for part in ("weight", "bias"):
            name = f"{block}.attention.output.LayerNorm.{part}"
            state[name] = state[name] / factor
        name = f"{block}.intermediate.dense.weight"
        state[name] = state[name] * factor
    assert network.error(state) > MOVED


@pytest.mark.parametrize("make", [pre_norm, post_norm])
@pytest.mark.parametrize("fold_norms", ["auto", "all", "none"])
def test_a_mean_added_to_writers_moves_their_numbers(
    make: Callable[[], Network], fold_norms: str
) -> None:
    network = make()
    state = means_added(network)
    assert network.error(state) < 1e-12
    moved = network.moved(state, fold_norms)
    held(moved["qk"], moves=set())
    held(moved["ov"], moves=POSITION | {"effective_rank_read"})
    held(moved["mlp"], moves=POSITION | {"effective_rank_read"})
    assert ("residual" in moved) == (make is pre_norm)
    if make is pre_norm:  # folding takes the mean out of what is read
        as_stored = POSITION | {"effective_rank_write"}
        held(moved["residual"], moves=as_stored if fold_norms == "none" else set())
    for space in "qkv":
        held(moved[f"heads {space}"], moves=set())
    held(moved["heads o"], moves={"overlap_ratio"})


def test_the_page_names_what_moves_and_what_does_not() -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = text.partition("## What LayerNorm leaves free")[2].partition("\n## ")[0]
    moves, stays = (
        set(re.findall(r"`(\w+)`", line))
        for start in ("Position:", "Ranks:")
        for line in [re.search(rf"{start}[^.]*\.", section)]
        if line is not None
        for line in [line[0]]
    )
    assert moves == POSITION
    assert stays == RANKS
    others = {"effective_rank_write", "effective_rank_read", *COUNTED}
    assert {*POSITION, *RANKS, *others} == set(NUMBERS)
