"""Maps of all sizes: what is summed, compared or laid side by side is so in one unit."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from mpmath import mp, mpf
from torch import Tensor

import flagscope
from flagscope.records import Balanced, PairRecord

HIDDEN, HEADS, SHARED, INNER = 16, 4, 2, 24
SIZE = HIDDEN // HEADS  # of a head
AT = "model.layers.0."
Q, K, V, OUT = (f"{AT}self_attn.{name}_proj.weight" for name in "qkvo")
UP, DOWN = (f"{AT}mlp.{name}_proj.weight" for name in ("up", "down"))
NUMBERS = ("commutator_ratio", "gram_correlation", "commutation_defect", "imbalance")
CONFIG = {
    "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": 1, "hidden_act": "silu",
    "num_attention_heads": HEADS, "num_key_value_heads": SHARED,
}  # fmt: skip


def decoder(layers: int = 1) -> dict[str, Tensor]:
    """Weights of a small decoder whose query heads share key and value heads two by two."""
    draw = torch.Generator().manual_seed(4)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64) * 0.1

    state = {
        "model.embed_tokens.weight": random(8, HIDDEN),
        "model.norm.weight": torch.ones(HIDDEN, dtype=torch.float64),
        "lm_head.weight": random(8, HIDDEN),
    }
    for i in range(layers):
        at = f"model.layers.{i}."
        for name, rows in (("q", HEADS), ("k", SHARED), ("v", SHARED), ("o", HEADS)):
            state[f"{at}self_attn.{name}_proj.weight"] = random(rows * SIZE, HIDDEN)
        for name, shape in (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)),
                            ("down", (HIDDEN, INNER))):  # fmt: skip
            state[f"{at}mlp.{name}_proj.weight"] = random(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{at}{name}.weight"] = torch.ones(HIDDEN, dtype=torch.float64)
    return state


def head(tensor: str, number: int) -> tuple[str, tuple[slice, ...]]:
    """Where the weights of a head lie."""
    rows = slice(number * SIZE, (number + 1) * SIZE)
    return tensor, ((slice(None), rows) if tensor == OUT else (rows,))


def resized(
    where: Sequence[tuple[str, tuple[slice, ...]]], factor: float, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The decoder, parts of it multiplied, as stored in a type."""
    state = decoder()
    for tensor, at in where:
        state[tensor][at] *= factor
    return {name: tensor.to(dtype) for name, tensor in state.items()}


def scanned(state: dict[str, Tensor], **settings: Any) -> dict[str, PairRecord]:
    result = flagscope.scan(state, config=CONFIG, workers=1, **settings).result
    assert not result.failures
    return {pair.name: pair for pair in result.pairs}


# The same from the stored numbers in fifty digits of mpmath, whose exponents have no end.


def exact(tensor: Tensor) -> mp.matrix:
    return mp.matrix([[mpf(value) for value in row] for row in tensor.double().tolist()])


def power(gram: mp.matrix, exponent: float) -> mp.matrix:
    values, vectors = mp.eigsy(gram)
    return vectors * mp.diag([value**exponent for value in values]) * vectors.T


def balancing_gauge(a: mp.matrix, b: mp.matrix) -> mp.matrix:
    root, inverse = power(a, 0.5), power(a, -0.5)
    return power(inverse * power(root * b * root, 0.5) * inverse, 0.5)


def plane_gauge(a: mp.matrix, b: mp.matrix) -> mp.matrix:
    """Of rotary planes (j, j + d/2): equal traces of A and B over each."""
    half = a.rows // 2
    traces = [[gram[j, j] + gram[j + half, j + half] for j in range(half)] for gram in (a, b)]
    return mp.diag([(y / x) ** mpf(0.25) for x, y in zip(*traces, strict=True)] * 2)


def neuron_gauge(a: mp.matrix, b: mp.matrix) -> mp.matrix:
    return mp.diag([(b[i, i] / a[i, i]) ** mpf(0.25) for i in range(a.rows)])


def square(matrix: mp.matrix) -> mpf:
    return mp.fsum(value**2 for value in matrix)


def observables(a: mp.matrix, b: mp.matrix) -> dict[str, float]:
    d = a.rows
    one, two = (gram - mp.eye(d) * mp.fsum(gram[i, i] for i in range(d)) / d for gram in (a, b))
    product, norms = one * two, square(one) * square(two)
    commutator = square(product - product.T)
    rho = mp.fsum(x * y for x, y in zip(one, two, strict=True)) / mp.sqrt(norms)
    found = {
        "commutator_ratio": commutator * (d - 1) * (d + 2) / (2 * d * norms),
        "gram_correlation": rho,
        "commutation_defect": commutator / (2 * square(product)),
        "imbalance": mp.sqrt(square(a - b)) / (mp.sqrt(square(a)) + mp.sqrt(square(b))),
    }
    return {name: float(value) for name, value in found.items()}


def expected(state: dict[str, Tensor], kind: str, number: int) -> dict[str, float]:
    """The balanced numbers of one query head, or of the MLP."""
    with mp.workdps(120):
        share = HEADS // SHARED
        group = range(number // share * share, (number // share + 1) * share)
        if kind == "qk":
            grams = {h: gram_of(state, Q, h) for h in group}
            a, b = sum_of(grams.values()), gram_of(state, K, number // share)
            g = plane_gauge(a, b)
            return observables(moved(grams[number], g), moved(b, g**-1))
        if kind == "ov":
            grams = {h: gram_of(state, OUT, h) for h in group}
            a, b = gram_of(state, V, number // share), sum_of(grams.values())
            g = balancing_gauge(a, b)
            return observables(moved(a, g), moved(grams[number], g**-1))
        up, down = exact(state[UP]), exact(state[DOWN].mT)
        a, b = up * up.T, down * down.T
        g = neuron_gauge(a, b)
        return observables(moved(a, g), moved(b, g**-1))


def gram_of(state: dict[str, Tensor], tensor: str, number: int) -> mp.matrix:
    name, at = head(tensor, number)
    w = exact(state[name][at].mT if tensor == OUT else state[name][at])
    return w * w.T


def sum_of(grams: Any) -> mp.matrix:
    first, *rest = grams
    for gram in rest:
        first = first + gram
    return first


def moved(gram: mp.matrix, g: mp.matrix) -> mp.matrix:
    return g * gram * g.T


def assert_numbers(found: Balanced | None, numbers: dict[str, float], *, within: float) -> None:
    assert found is not None
    assert found.status == "ok"
    for name, value in numbers.items():
        assert getattr(found, name) == pytest.approx(value, rel=within, abs=within), name


TYPES = (torch.float32, torch.bfloat16, torch.float64)
SCALES = (1e-40, 1e-30, 1e-20, 1e10, 1e38)
PARTS = {
    "a query and an output head": [head(Q, 1), head(OUT, 1)],
    "a key and a value head": [head(K, 0), head(V, 0)],
}


@pytest.mark.parametrize("stored", TYPES)
@pytest.mark.parametrize("factor", SCALES)
@pytest.mark.parametrize("part", PARTS)
def test_heads_of_a_group_are_balanced_together_whatever_their_sizes(part, factor, stored):
    state = resized(PARTS[part], factor, stored)
    found = scanned(state, only="pairs")
    for kind in ("qk", "ov"):
        for number in range(HEADS):
            pair = found[f"layer.0.head.{number}.{kind}"]
            # What is left of 1e-40 in bfloat16 is zeros, and the head has no numbers.
            if stored is torch.bfloat16 and factor == 1e-40 and "all zero" in pair.status:
                assert number < 2
                continue
            assert pair.status == "ok"
            assert_numbers(pair.balanced, expected(state, kind, number), within=1e-8)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_and_in_half_precision_within_its_range(factor):
    state = resized([*PARTS["a query and an output head"], head(K, 1)], factor, torch.float16)
    found = scanned(state, only="pairs")
    for number in range(HEADS):
        for kind in ("qk", "ov"):
            pair = found[f"layer.0.head.{number}.{kind}"]
            assert_numbers(pair.balanced, expected(state, kind, number), within=1e-8)


@pytest.mark.parametrize("factor", SCALES)
def test_heads_and_neurons_measured_in_single_precision_have_the_numbers_of_double(factor):
    neurons = [(UP, (slice(3, 5),)), (DOWN, (slice(None), slice(4, 9)))]
    state = resized([head(Q, 1), head(V, 0), *neurons], factor, torch.float32)
    found = scanned(state, only="pairs", precision="float32")
    pairs = [("qk", number) for number in range(HEADS)] + [("ov", 0), ("ov", 1), ("mlp", 0)]
    for kind, number in pairs:
        name = "layer.0.mlp.up" if kind == "mlp" else f"layer.0.head.{number}.{kind}"
        assert_numbers(found[name].balanced, expected(state, kind, number), within=2e-5)


# In bfloat16 nothing is left of rows of 1e-40.
STORED = [(stored, factor) for stored in TYPES for factor in SCALES]
STORED.remove((torch.bfloat16, 1e-40))


@pytest.mark.parametrize(("stored", "factor"), STORED)
def test_neurons_of_a_gated_mlp_are_balanced_whatever_their_sizes(stored, factor):
    state = resized([(UP, (slice(3, 5),)), (DOWN, (slice(None), slice(4, 9)))], factor, stored)
    found = scanned(state, only="pairs")["layer.0.mlp.up"]
    assert_numbers(found.balanced, expected(state, "mlp", 0), within=1e-8)


@pytest.mark.parametrize(("kind", "tensor"), [("qk", Q), ("ov", OUT)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_heads_next_to_one_that_is_not_finite_have_a_status_and_no_balanced_number(
    kind, tensor, value
):
    usual, state = scanned(decoder()), decoder()
    name, at = head(tensor, 1)
    state[name][at][0, 0] = value
    found = scanned(state)
    gone = found[f"layer.0.head.1.{kind}"]
    assert gone.balanced is None
    assert gone.status.endswith("is not finite")
    sibling = found[f"layer.0.head.0.{kind}"]
    assert sibling.status == "ok"
    assert sibling.commutator_ratio == usual[sibling.name].commutator_ratio
    assert sibling.balanced is not None
    assert sibling.balanced.status == f"{gone.name}, which shares a map with it, is not finite"
    assert all(getattr(sibling.balanced, number) is None for number in NUMBERS)
    for number in (2, 3):
        other = f"layer.0.head.{number}.{kind}"
        numbers = {number: getattr(usual[other].balanced, number) for number in NUMBERS}
        assert_numbers(found[other].balanced, numbers, within=1e-8)


def test_a_zero_head_adds_nothing_to_the_sum_of_its_group():
    state = resized([head(Q, 1), head(OUT, 1)], 0.0, torch.float64)
    tiny = resized([head(Q, 1), head(OUT, 1)], 1e-30, torch.float64)
    found, limit = scanned(state, only="pairs"), scanned(tiny, only="pairs")
    for kind in ("qk", "ov"):
        assert found[f"layer.0.head.1.{kind}"].status.endswith("is all zero")
        name = f"layer.0.head.0.{kind}"
        numbers = {number: getattr(limit[name].balanced, number) for number in NUMBERS}
        assert_numbers(found[name].balanced, numbers, within=1e-8)


def gpt2() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config of two blocks of GPT-2 with LayerNorms and GELU, d = 16, two heads."""
    draw = torch.Generator().manual_seed(5)
    shapes = {
        "attn.c_attn.weight": (16, 48), "attn.c_proj.weight": (16, 16),
        "mlp.c_fc.weight": (16, 64), "mlp.c_proj.weight": (64, 16),
    }  # fmt: skip
    state = {"wte.weight": torch.randn(8, 16, generator=draw, dtype=torch.float64)}
    for i in range(2):
        for name, shape in shapes.items():
            weight = torch.randn(*shape, generator=draw, dtype=torch.float64)
            state[f"h.{i}.{name}"] = weight * 0.1
        for name in ("ln_1", "ln_2"):
            state[f"h.{i}.{name}.weight"] = torch.rand(16, generator=draw).double() + 0.5
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 8}
    return state, config


MODELS = {"llama": (decoder(2), CONFIG | {"num_hidden_layers": 2}), "gpt2": gpt2()}
# Numbers that have the units of the weights; balanced ones have not.
SIZED = {"product_spectrum", "imbalance"}


def told(state: dict[str, Tensor], config: dict[str, Any], **settings: Any) -> dict[str, Any]:
    found = json.loads(flagscope.scan(state, config=config, workers=1, **settings).to_json())
    return {part: found[part] for part in ("pairs", "heads", "edges", "edge_tests")}


def assert_alike(one: Any, other: Any, *, within: float, at: str = "") -> None:
    """All numbers but those with the units of the weights, however deep they lie."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key, value in one.items():
            if key not in SIZED or "balanced" in at:
                assert_alike(value, other[key], within=within, at=f"{at}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), at
        for i, (x, y) in enumerate(zip(one, other, strict=True)):
            assert_alike(x, y, within=within, at=f"{at}[{i}]")
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=within, abs=within), at
    else:
        assert one == other, at


ROUTES = [("mixed", torch.float32), ("mixed", torch.bfloat16), ("float32", torch.float64)]


@pytest.mark.parametrize(("precision", "stored"), ROUTES)
@pytest.mark.parametrize("model", MODELS)
def test_all_weights_times_a_power_of_two_change_nothing(model, precision, stored):
    weights, config = MODELS[model]
    state = {name: tensor.to(stored) for name, tensor in weights.items()}
    usual = told(state, config, precision=precision)
    sized: dict[str, Tensor] = {}
    for power in (100, -100):
        sized = {name: tensor * 2.0**power for name, tensor in state.items()}
        assert_alike(usual, told(sized, config, precision=precision), within=1e-9)
    # Without the gains of norms all maps keep their sizes beside each other.
    sized |= {name: state[name] for name in state if "norm" in name or ".ln_" in name}
    found = told(sized, config, precision=precision)
    assert_alike(usual, found, within=1e-9)
    assert [pair["imbalance"] for pair in found["pairs"]] == pytest.approx(
        [pair["imbalance"] for pair in usual["pairs"]], rel=1e-9
    )


@pytest.mark.parametrize("precision", ["mixed", "float32"])
@pytest.mark.parametrize("model", MODELS)
def test_nor_do_powers_of_two_that_each_tensor_has_for_itself(model, precision):
    state, config = MODELS[model]
    sized = {
        name: tensor * 2.0 ** (61 * number % 201 - 100)
        for number, (name, tensor) in enumerate(state.items())
    }
    within = 1e-9 if precision == "mixed" else 1e-4  # a scale of √2 rounds in float32
    usual, found = (told(one, config, precision=precision) for one in (state, sized))
    assert_alike(usual, found, within=within)


@pytest.mark.parametrize("factor", [1e-40, 1e-30, 1e30])
def test_links_of_heads_of_unlike_sizes_are_those_of_double_precision(factor):
    """A key head reads by way of both of its query heads, which lie side by side."""
    state, config = MODELS["llama"]
    state = {name: tensor.clone() for name, tensor in state.items()}
    for layer in range(2):
        for tensor, number in ((Q, 1), (OUT, 2), (V, 0)):
            name, at = head(tensor, number)
            state[name.replace("layers.0", f"layers.{layer}")][at] *= factor
    exact, found = (
        told(state, config, only="residual", precision=precision)["edges"]
        for precision in ("mixed", "float32")
    )
    assert len(exact) == len(found) > 0
    known = {(edge["from"], edge["to"]): edge for edge in found}
    for edge in exact:
        other = known[edge["from"], edge["to"]]
        for number in ("overlap_ratio", "composition", "composition_ratio"):
            assert other[number] == pytest.approx(edge[number], rel=1e-5), number


@pytest.mark.parametrize("factor", [1e-300, 1e-40, 1e300])
def test_double_precision_beyond_the_range_of_single_is_measured_in_single_precision(factor):
    state = resized([head(Q, 1), head(V, 0)], factor, torch.float64)
    found = scanned(state, only="pairs", precision="float32")
    exact = scanned(decoder(), only="pairs", precision="float32")
    for number in (0, 1):
        pair = found[f"layer.0.head.{number}.ov"]
        # Only the shared map has another size: no number of the pairs can tell.
        assert pair.commutator_ratio == pytest.approx(exact[pair.name].commutator_ratio, rel=1e-5)
        numbers = {name: getattr(exact[pair.name].balanced, name) for name in NUMBERS}
        assert_numbers(pair.balanced, numbers, within=1e-5)
    alone = found["layer.0.head.1.qk"]
    assert alone.commutator_ratio == pytest.approx(exact[alone.name].commutator_ratio, rel=1e-5)
