"""Trained networks rewritten with their function kept, and what a scan of them then says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
from flagscope.diagnose import PairRecord
from flagscope.errors import InputError
from flagscope.lab.networks import Network
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.reparameterize import (
    Change,
    Symmetry,
    applicable,
    apply,
    balancing_change,
    random_change,
)

State = dict[str, Tensor]
# What a scan says of a pair in one number.
OBSERVABLES = (
    "rank_write", "rank_read", "kernel_intersection", "product_rank", "product_effective_rank",
    "effective_rank_write", "effective_rank_read", "commutator_ratio", "gram_correlation",
    "commutation_defect", "imbalance", "overlap_ratio", "intersection_exact",
    "intersection_beyond_chance", "flag_defect",
)  # fmt: skip


@dataclass(frozen=True)
class Rewritable:
    """Weights, how flagscope is to read them, and what they compute.

    Attributes
    ----------
    state, config
        As `flagscope.scan` takes them.
    outputs
        The network's outputs on fixed inputs, for any weights.
    """

    state: State
    config: dict[str, Any]
    outputs: Callable[[State], Tensor]

    def pairs(self, state: State) -> dict[str, PairRecord]:
        """What a scan says of each pair."""
        scan = flagscope.scan(state, config=self.config, rank=LAB_RULE)
        return {record.name: record for record in scan.result.pairs}

    def symmetries(self, kind: str) -> list[Symmetry]:
        """Where a kind of change is open: in a perceptron, its first shared space alone.

        A map stands in two pairs of a perceptron; changing one space also moves the pair behind.
        """
        found = [
            one
            for one in applicable(flagscope.inspect(self.state, config=self.config).graph)
            if one.kind == ("gl" if kind in ("orthogonal", "balanced") else kind)
        ]
        return found if "n_head" in self.config else found[:1]

    def changes(self, kind: str, *, seed: int) -> list[Change]:
        """Random changes of a kind, or those that balance; "orthogonal" is a part of "gl"."""
        generator = torch.Generator().manual_seed(seed)
        places = self.symmetries(kind)
        if not places:
            raise InputError(f"no change of kind {kind!r} is open in this network")
        if kind == "balanced":
            return [balancing_change(one, self.state) for one in places]
        drawn = [random_change(one, generator=generator) for one in places]
        if kind != "orthogonal":
            return drawn
        return [Change(one.symmetry, torch.linalg.qr(one.values).Q) for one in drawn]

    def rewritten(self, changes: Sequence[Change]) -> tuple[State, float]:
        """Weights after the changes, and how far the outputs moved, relative to the largest."""
        state = apply(self.state, changes).state
        before, after = self.outputs(self.state), self.outputs(state)
        return state, float((after - before).abs().max() / before.abs().max())


def changed_pairs(changes: Sequence[Change]) -> list[str]:
    """Names of the pairs whose shared space the changes act on.

    A perceptron's other pairs share a map with a changed one, and may move whatever the group.
    """
    return sorted(
        member.name
        for change in changes
        if isinstance(change.symmetry.group, PairGroup)
        for member in change.symmetry.group.members
        if change.symmetry.member in (None, member.kv_head)
    )


def movements(before: PairRecord, after: PairRecord) -> dict[str, float]:
    """By how much each number moved, relative to it; to 0.01, or 1 for dimensions, if it is less.

    Numbers that are undefined on both sides are left out.
    """
    found: dict[str, float] = {}
    for name in OBSERVABLES:
        old, new = number(before, name), number(after, name)
        if old is not None and new is not None:
            whole = name.startswith(("rank", "product_rank", "intersection", "kernel"))
            found[name] = abs(new - old) / max(abs(old), 1.0 if whole else 1e-2)
    return found


def number(record: PairRecord, name: str) -> float | None:
    """A number of a record or of its functional part."""
    value = getattr(record, name, None)
    if value is None and record.functional is not None:
        value = getattr(record.functional, name, None)
    return None if value is None else float(value)


def perceptron(
    network: Network, seed: int, inputs: Float[Tensor, "n features"], *, dtype: torch.dtype
) -> Rewritable:
    """The trained perceptron of one seed, stored in a dtype."""
    # Numbered as an nn.Sequential with activations is, so that nothing can stand beside them.
    state = {f"{2 * i}.weight": w.detach()[seed].to(dtype) for i, w in enumerate(network.weights)}

    def outputs(state: State) -> Tensor:
        weights = [w.double()[None] for w in state.values()]
        return Network(weights, None, network.activation)(inputs.double())[0]

    return Rewritable(state, {"activation": network.activation.partition(":")[0]}, outputs)


def demo_model() -> Rewritable:
    """The bundled GPT in float64, with a forward pass of its own."""
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
        at = f"h.{layer}"
        q, k, v = (
            part.unflatten(-1, (config["n_head"], -1)).transpose(1, 2)
            for part in project(norm(x, f"{at}.ln_1"), f"{at}.attn.c_attn").chunk(3, -1)
        )
        heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + project(heads.transpose(1, 2).flatten(-2), f"{at}.attn.c_proj")
        hidden = project(norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc")
        x = x + project(functional.gelu(hidden, approximate="tanh"), f"{at}.mlp.c_proj")
    return norm(x, "ln_f") @ w.get("lm_head.weight", w["wte.weight"]).T
