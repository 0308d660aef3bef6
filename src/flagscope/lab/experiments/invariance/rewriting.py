"""Rewrites trained networks without changing their function, and measures the effect on scans."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

import flagscope
from flagscope.arch import PairGroup
from flagscope.demo import final
from flagscope.errors import InputError
from flagscope.lab.networks import Network
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.records import PairRecord, ScanResult
from flagscope.reparameterize import (
    Change,
    Symmetry,
    applicable,
    apply,
    balancing_change,
    random_change,
)

State = dict[str, Tensor]
# Scalar observables of a pair.
OBSERVABLES = (
    "rank_write", "rank_read", "kernel_intersection", "product_rank", "product_effective_rank",
    "effective_rank_write", "effective_rank_read", "commutator_ratio", "gram_correlation",
    "commutation_defect", "imbalance", "overlap_ratio", "intersection_exact",
    "intersection_beyond_chance", "flag_defect",
)  # fmt: skip
# Prefixes of the names of integer observables.
_DIMENSIONS = ("rank", "product_rank", "intersection", "kernel")


@dataclass(frozen=True)
class Rewritable:
    """Weights, how to scan them, and the function that they compute.

    Attributes
    ----------
    state, config, rank
        Arguments of `flagscope.scan`.
    outputs
        Function from weights to the network's outputs on fixed inputs.
    """

    state: State
    config: Mapping[str, Any] | None
    outputs: Callable[[State], Tensor]
    rank: str = LAB_RULE

    def scan(self, state: State) -> ScanResult:
        """The scan of the network with other weights."""
        return flagscope.scan(state, config=self.config, rank=self.rank).result

    def pairs(self, state: State) -> dict[str, PairRecord]:
        """Records of the pairs from a scan."""
        return {record.name: record for record in self.scan(state).pairs}

    def places(self, kind: str, pattern: str = "") -> list[Symmetry]:
        """All symmetries of a kind, by regular expressions for kind and name."""
        return [
            symmetry
            for symmetry in applicable(flagscope.inspect(self.state, config=self.config).graph)
            if re.fullmatch(kind, symmetry.kind) and re.search(pattern, symmetry.name)
        ]

    def symmetries(self, kind: str) -> list[Symmetry]:
        """Symmetries of a kind of change; for a perceptron, only those of its first shared space.

        A map is in two pairs of a perceptron, so changing one space also changes the next pair.
        """
        places = self.places("gl" if kind in ("orthogonal", "balanced") else kind)
        return places if "n_head" in (self.config or {}) else places[:1]

    def changes(self, kind: str, *, seed: int) -> list[Change]:
        """Random changes of a kind, or balancing ones; "orthogonal" is a subgroup of "gl"."""
        symmetries = self.symmetries(kind)
        if not symmetries:
            raise InputError(f"no change of kind {kind!r} is open in this network")
        if kind == "balanced":
            return [balancing_change(symmetry, self.state) for symmetry in symmetries]
        drawn = random_changes(symmetries, seed=seed)
        if kind != "orthogonal":
            return drawn
        return [Change(change.symmetry, torch.linalg.qr(change.values).Q) for change in drawn]

    def rewritten(self, changes: Sequence[Change]) -> tuple[State, float]:
        """Weights after the changes, and the largest relative change of the outputs."""
        state = apply(self.state, changes).state
        before, after = self.outputs(self.state), self.outputs(state)
        return state, float((after - before).abs().max() / before.abs().max())


def random_changes(symmetries: Sequence[Symmetry], *, seed: int) -> list[Change]:
    """One random change of each symmetry, all drawn from one generator."""
    generator = torch.Generator().manual_seed(seed)
    return [random_change(symmetry, generator=generator) for symmetry in symmetries]


def changed_pairs(changes: Sequence[Change]) -> list[str]:
    """Names of the pairs whose shared space is changed; empty for the stream.

    The other pairs of a perceptron share a map with a changed pair, and may move under any group.
    """
    return sorted(
        {
            member.name
            for change in changes
            if isinstance(change.symmetry.group, PairGroup)
            for group in (change.symmetry.group, *change.symmetry.partners)
            for member in group.members
        }
    )


def movements(before: PairRecord, after: PairRecord) -> dict[str, float]:
    """Movement of each observable; undefined ones are left out."""
    moved = {name: movement(before, after, name) for name in OBSERVABLES}
    return {
        name: value for name, value in moved.items() if value is not None and math.isfinite(value)
    }


def movement(before: Any, after: Any, name: str) -> float | None:
    """Largest change of a number or list, relative to the largest old value.

    A denominator below 0.01 counts as 0.01, and a dimension of 0 as 1. None if the number is
    undefined in both records; infinite if it is undefined in one, or the lists differ in length.
    """
    old, new = numbers(before, name), numbers(after, name)
    if old is None and new is None:
        return None
    if old is None or new is None or old.shape != new.shape:
        return math.inf
    least = 1.0 if name.startswith(_DIMENSIONS) else 1e-2
    return float((new - old).abs().max() / old.abs().max().clamp(min=least))


def numbers(record: Any, name: str) -> Float[Tensor, " n"] | None:
    """An observable of a record or of its functional part, as a vector even if it is scalar."""
    value = getattr(record, name, None)
    if value is None:
        value = getattr(getattr(record, "functional", None), name, None)
    if value is None:
        return None
    return torch.tensor(getattr(value, "top", value), dtype=torch.float64).flatten()


def number(record: PairRecord, name: str) -> float | None:
    """A scalar observable."""
    values = numbers(record, name)
    return None if values is None else values.item()


def perceptron(
    network: Network, seed: int, inputs: Float[Tensor, "n features"], *, dtype: torch.dtype
) -> Rewritable:
    """The trained perceptron of one seed, stored in a dtype."""
    # Numbered like an nn.Sequential with activations, so that no bias or norm can lie between.
    state = {f"{2 * i}.weight": w.detach()[seed].to(dtype) for i, w in enumerate(network.weights)}

    def outputs(state: State) -> Tensor:
        weights = [w.double()[None] for w in state.values()]
        return Network(weights, None, network.activation)(inputs.double())[0]

    return Rewritable(state, {"activation": network.activation.partition(":")[0]}, outputs)


def demo_model() -> Rewritable:
    """The bundled GPT in float64, with a separate implementation of its forward pass."""
    path = final()
    config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    stored = {name: tensor.double() for name, tensor in load_file(path).items()}
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(config["vocab_size"], (2, 64), generator=generator)
    return Rewritable(stored, config, lambda state: gpt2_logits(state, config, tokens))


def gpt2_logits(
    state: State, config: dict[str, Any], tokens: Tensor
) -> Float[Tensor, "batch n vocabulary"]:
    """The forward pass of GPT-2, in the dtype of the weights.

    References
    ----------
    Radford et al., Language Models are Unsupervised Multitask Learners (2019).
    """
    prefix = "transformer." if any(name.startswith("transformer.") for name in state) else ""
    w = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    epsilon = config.get("layer_norm_epsilon", 1e-5)

    def norm(x: Tensor, name: str) -> Tensor:
        scale, shift = w[f"{name}.weight"], w[f"{name}.bias"]
        return functional.layer_norm(x, scale.shape, scale, shift, epsilon)

    def project(x: Tensor, name: str) -> Tensor:  # stored as (in, out)
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["wte.weight"][tokens] + w["wpe.weight"][: tokens.shape[1]]
    for layer in range(config["n_layer"]):
        block = f"h.{layer}"
        q, k, v = (
            part.unflatten(-1, (config["n_head"], -1)).transpose(1, 2)
            for part in project(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").chunk(3, -1)
        )
        heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + project(heads.transpose(1, 2).flatten(-2), f"{block}.attn.c_proj")
        hidden = project(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + project(functional.gelu(hidden, approximate="tanh"), f"{block}.mlp.c_proj")
    return norm(x, "ln_f") @ w.get("lm_head.weight", w["wte.weight"]).T
