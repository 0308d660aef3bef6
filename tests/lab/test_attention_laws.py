"""Laws of attention: exact in rational arithmetic, networks against PyTorch's, verdicts by rule."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from flagscope.errors import InputError
from flagscope.lab.experiment import Measured, Options
from flagscope.lab.experiments.attention_laws.attention_network import AttentionNetwork
from flagscope.lab.experiments.attention_laws.conserved import (
    LawLedger,
    Quantity,
    read_gram,
    write_gram,
)
from flagscope.lab.experiments.attention_laws.experiment import EXPERIMENT
from flagscope.lab.experiments.attention_laws.findings import LawRuns
from flagscope.lab.experiments.attention_laws.networks import (
    NETWORKS,
    NormedNetwork,
    ResidualLinearNetwork,
)
from flagscope.lab.training import Optimiser, mean_square, train


class Dual:
    """a + b ε with ε² = 0, in rational numbers: exact derivatives along a direction."""

    def __init__(self, a, b=0):
        self.a, self.b = Fraction(a), Fraction(b)

    def __add__(self, other):
        other = other if isinstance(other, Dual) else Dual(other)
        return Dual(self.a + other.a, self.b + other.b)

    def __mul__(self, other):
        other = other if isinstance(other, Dual) else Dual(other)
        return Dual(self.a * other.a, self.a * other.b + self.b * other.a)

    def __truediv__(self, other):
        return self * Dual(1 / other.a, -other.b / other.a**2)

    def __neg__(self):
        return Dual(-self.a, -self.b)

    def __sub__(self, other):
        return self + -(other if isinstance(other, Dual) else Dual(other))

    __radd__, __rmul__ = __add__, __mul__


def rational(*shape, seed):
    rng = np.random.default_rng(seed)
    numerators = rng.integers(-9, 10, shape)
    return np.vectorize(lambda n: Dual(Fraction(int(n), 4)), otypes=[object])(numerators)


def moved(x, weight, sign=1):
    """(I + ε X) W for sign 1, (I - ε Xᵀ) W for -1."""
    direction = (x if sign == 1 else -x.T) @ np.vectorize(lambda w: w.a, otypes=[object])(weight)
    return weight + np.vectorize(lambda b: Dual(0, b), otypes=[object])(direction)


def symmetric(i, j, size):
    x = np.array([[Fraction(0)] * size for _ in range(size)], dtype=object)
    x[i, j] = x[j, i] = Fraction(1)
    return x


def attention_loss(queries, key, value, outputs, tokens, rotations):
    """Sum of squares of attention with rational weights (1 + s²) / Σ(1 + s²), biases as inputs."""
    total = Dual(0)
    k = [rotations[t] @ (key @ x) for t, x in enumerate(tokens)]
    for t, x in enumerate(tokens):
        out = np.array([Dual(0)] * outputs[0].shape[0], dtype=object)
        for q, o in zip(queries, outputs, strict=True):
            turned = rotations[t] @ (q @ x)
            scores = [Dual(1) + (turned @ k[u]) * (turned @ k[u]) for u in range(t + 1)]
            norm = sum(scores, Dual(0))
            for u, score in enumerate(scores):
                out = out + (o @ (value @ tokens[u])) * (score / norm)
        total = total + out @ out
    return total


def rotation(t, angles):
    """Exact powers of rotations with rational cosines and sines, on planes (j, j + half)."""
    half = len(angles)
    found = np.array([[Fraction(0)] * (2 * half) for _ in range(2 * half)], dtype=object)
    for j, (c, s) in enumerate(angles):
        plane = np.array([[Fraction(1), Fraction(0)], [Fraction(0), Fraction(1)]], dtype=object)
        for _ in range(t):
            plane = plane @ np.array([[c, -s], [s, c]], dtype=object)
        for a, b in product(range(2), repeat=2):
            found[j + a * half, j + b * half] = plane[a, b]
    return found


PLANES = [(Fraction(3, 5), Fraction(4, 5)), (Fraction(5, 13), Fraction(12, 13))]
ALONE, WHOLE = [(0, 0), (0, 1), (0, 2), (1, 3), (3, 3)], 4


def derivative(x, *, heads=(0, 1), rotary=False, space="qk"):
    """Of the loss along X acting on these query heads and on what they share."""
    queries = [rational(4, 3, seed=s) for s in (1, 2)]
    key, value = rational(4, 3, seed=3), rational(4, 3, seed=4)
    outputs = [rational(2, 4, seed=s) for s in (5, 6)]
    if space == "qk":
        queries = [moved(x, q) if h in heads else q for h, q in enumerate(queries)]
        key = moved(x, key, -1)
    else:
        value = moved(x, value)
        outputs = [moved(x, o.T, -1).T if h in heads else o for h, o in enumerate(outputs)]
    tokens = [rational(3, seed=s) for s in (7, 8, 9)]
    for token in tokens:
        token[-1] = Dual(1)  # a bias is the column of an input that is always 1
    turns = [rotation(t, PLANES if rotary else [(1, 0), (1, 0)]) for t in range(3)]
    return attention_loss(queries, key, value, outputs, tokens, turns).b


@pytest.mark.parametrize("space", ["qk", "vo"])
@pytest.mark.parametrize(("i", "j"), ALONE)
def test_the_first_order_term_vanishes_exactly_for_a_group_and_not_for_a_head(space, i, j):
    x = symmetric(i, j, WHOLE)
    assert derivative(x, space=space) == 0
    assert derivative(x, space=space, heads=(0,)) != 0
    if space == "vo":
        assert derivative(x, space=space, rotary=True) == 0


def test_under_rotation_only_the_traces_of_planes_are_left_exactly():
    for i, j in ALONE:
        assert derivative(symmetric(i, j, WHOLE), rotary=True) != 0
    for plane in (0, 1):  # planes (j, j + 2)
        trace = symmetric(plane, plane, WHOLE) + symmetric(plane + 2, plane + 2, WHOLE)
        assert derivative(trace, rotary=True) == 0


def test_a_step_inside_a_residual_block_obeys_the_law_exactly():
    def fractions(*shape, seed):
        numerators = np.random.default_rng(seed).integers(-9, 10, shape)
        return np.vectorize(lambda n: Fraction(int(n), 4), otypes=[object])(numerators)

    w1, w2, u = fractions(2, 4, seed=1), fractions(4, 2, seed=2), fractions(3, 4, seed=3)
    h, y = fractions(4, 5, seed=4), fractions(3, 5, seed=5)
    h[-1] = Fraction(1)
    step, decay = Fraction(1, 7), Fraction(1, 3)
    shrink = 1 - step * decay
    delta = u.T @ (u @ (h + w2 @ (w1 @ h)) - y)  # gradient of ½ ‖U (h + W2 W1 h) - Y‖² in the sum
    g1, g2 = w2.T @ delta @ h.T, delta @ (w1 @ h).T
    before = w1 @ w1.T - w2.T @ w2
    w1, w2 = shrink * w1 - step * g1, shrink * w2 - step * g2
    law = shrink**2 * before + step**2 * (g1 @ g1.T - g2.T @ g2)
    assert (w1 @ w1.T - w2.T @ w2 == law).all()


def test_a_normalised_row_has_no_derivative_along_itself_exactly():
    """Of the square of the normalised value, which is rational."""
    w, tokens = rational(3, seed=1), [rational(3, seed=s) for s in range(2, 7)]
    w = w + np.array([Dual(0, v.a) for v in w], dtype=object)
    z = [w @ x for x in tokens]
    mean = sum(z, Dual(0)) * Fraction(1, len(z))
    centred = [value - mean for value in z]
    variance = sum((c * c for c in centred), Dual(0))
    for i, c in enumerate(centred):
        assert (c * c / variance).b == 0
        assert (c * c / variance).a != 0, i


def gradients(network, seed=3):
    state = {n: p.requires_grad_() for n, p in network.initial([seed, seed + 1]).items()}
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 12, *network.inputs(), dtype=torch.float64, generator=generator)
    out = network(state, x)
    target = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    mean_square(out, target).backward()
    weights = {name: p.detach() for name, p in state.items()}
    return weights, {name: p.grad for name, p in state.items()}


def polar_form(quantity, weights, directions):
    """q(w, g), the symmetric bilinear form with q(w, w) = q(w)."""
    moved = {name: weight + directions[name] for name, weight in weights.items()}
    return (quantity.of(moved) - quantity.of(weights) - quantity.of(directions)) / 2


@pytest.mark.parametrize("name", ["attention", "rotary", "residual", "batchnorm"])
def test_polar_forms_vanish_for_laws_and_for_nothing_else(name):
    network = NETWORKS[name]
    weights, slopes = gradients(network)
    for quantities, conserved in ((network.laws(), True), (network.controls(), False)):
        for quantity in quantities:
            scale = quantity.of(weights).abs().max() + quantity.of(slopes).abs().max()
            worst = polar_form(quantity, weights, slopes).abs().max() / scale
            assert (worst < 1e-13) == conserved, quantity.name
            assert conserved or worst > 1e-5, quantity.name


def test_a_bias_of_keys_has_no_gradient_without_rotation():
    assert gradients(NETWORKS["attention"])[1]["b_k"].abs().max() < 1e-14
    assert gradients(NETWORKS["rotary"])[1]["b_k"].abs().max() > 1e-5


def test_an_epsilon_drives_row_norms_by_its_own_derivative():
    epsilon = torch.full((16,), 0.3, dtype=torch.float64, requires_grad=True)
    network = NormedNetwork(epsilon=epsilon)
    state = {n: p.requires_grad_() for n, p in network.initial([5]).items()}
    x = torch.randn(1, 12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    network(state, x).square().sum().backward()
    along = (state["first"] * state["first"].grad).sum(-1)[0]
    torch.testing.assert_close(along, -2 * epsilon.detach() * epsilon.grad, rtol=1e-10, atol=1e-12)
    assert along.abs().max() > 1e-2


@pytest.mark.parametrize("base", [None, 100.0])
def test_attention_is_that_of_pytorch(base):
    network = AttentionNetwork(rotary_base=base)
    state = network.initial([1, 2], sharpness=2.0)
    h = torch.randn(2, 3, 8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = network.attention(state, h)
    for s in range(2):
        q = functional.linear(h[s], state["q"][s].flatten(0, 2), state["b_q"][s].flatten())
        k = functional.linear(h[s], state["k"][s].flatten(0, 1), state["b_k"][s].flatten())
        v = functional.linear(h[s], state["v"][s].flatten(0, 1), state["b_v"][s].flatten())
        q, k, v = (z.unflatten(-1, (-1, 6)).transpose(1, 2) for z in (q, k, v))
        if base is not None:
            angles = torch.arange(8.0)[:, None] * base ** (-torch.arange(0, 6, 2) / 6)
            angles = torch.cat([angles, angles], -1).double()
            q, k = apply_rotary_pos_emb(q, k, angles.cos(), angles.sin(), unsqueeze_dim=0)
        read = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        maps = state["o"][s].flatten(0, 1).permute(1, 0, 2).flatten(1)
        expected = functional.linear(read.transpose(1, 2).flatten(2), maps, state["b_o"][s])
        torch.testing.assert_close(found[s], expected, rtol=1e-6, atol=1e-6)


def test_normalisation_is_that_of_pytorch():
    network = NormedNetwork(epsilon=1e-3)
    state = network.initial([1, 2])
    x = torch.randn(2, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for s, out in enumerate(network(state, x)):
        z = functional.batch_norm(x[s] @ state["first"][s].T, None, None, state["gain"][s],
                                  state["b_shift"][s], training=True, eps=1e-3)  # fmt: skip
        expected = functional.linear(z.relu(), state["second"][s], state["b_second"][s])
        torch.testing.assert_close(out, expected)


def test_the_residual_network_is_its_matrices():
    network = ResidualLinearNetwork()
    state = {
        n: torch.zeros_like(p) if n[:2] == "b_" else p for n, p in network.initial([4]).items()
    }
    w = {name: p[0] for name, p in state.items()}
    whole = w["embed"]
    for first, second in zip(w["first"], w["second"], strict=True):
        whole = (torch.eye(16).double() + second @ first) @ whole
    x = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(state, x)[0], x[0] @ (w["unembed"] @ whole).T)


def planted_pair():
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(2, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
        for name in ("first", "second")
    }


def ledgers_after(loss, steps=50):
    state = planted_pair()
    pair = Quantity("pair", lambda s: write_gram(s["first"]) - read_gram(s["second"]))
    alone = Quantity("alone", lambda s: write_gram(s["first"]))
    found = [LawLedger(quantity, state, step=0.05, decay=0.2) for quantity in (pair, alone)]
    optimiser = Optimiser(step=0.05, decay=0.2).build([*state.values()])

    def book(*_):
        for ledger in found:
            ledger.book()

    optimiser.register_step_pre_hook(book)
    train(optimiser, lambda _: loss(state), steps=steps)
    return found


def test_a_ledger_knows_the_law_with_a_loss_and_without():
    pair, alone = ledgers_after(lambda s: (s["second"] @ s["first"] - 1).square().sum())
    assert pair.driven().max() < 1e-13
    assert pair.remainder().min() > 1e-3  # steps are finite
    assert alone.driven().min() > 1e-2
    for ledger in ledgers_after(lambda s: 0 * sum(w.sum() for w in s.values())):
        assert ledger.remainder().max() < 1e-13


def test_a_ledger_wants_gradients():
    ledger = LawLedger(Quantity("w", lambda s: s["first"]), planted_pair(), step=0.1, decay=0.1)
    with pytest.raises(InputError, match="first has no gradient"):
        ledger.book()


def quick(name, **settings):
    (cell,) = [c for c in EXPERIMENT.cells(Options(quick=True)) if c.name == name]
    return type(cell)(cell.name, cell.settings | settings)


def test_a_seed_does_not_depend_on_its_company():
    together = EXPERIMENT.measure(
        quick("rotary-descent-0.02", steps=20, seeds=[3, 5]), lambda _: None
    )
    alone = EXPERIMENT.measure(quick("rotary-descent-0.02", steps=20, seeds=[5]), lambda _: None)
    for name, values in together["series"].items():
        other = alone["series"][name]["remainder"][-1][0]
        assert values["remainder"][-1][1] == pytest.approx(other, rel=1e-8), name


def planted(law=1e-14, control=0.1, exponent=1.0, still=0.0, adamw=0.5, epsilon=1e-4):
    """Cells whose quantities are what is asked, all else as the theory has it."""
    measured = []
    for cell in EXPERIMENT.cells(Options()):
        s = cell.settings
        network = NETWORKS[s["network"]]
        series = {}
        for quantities, conserved in ((network.laws(), True), (network.controls(), False)):
            for quantity in quantities:
                driven = law if conserved and s["kind"] == "descent" else control
                if s["network"] == "batchnorm-epsilon":
                    driven = epsilon
                power = exponent if conserved else still
                size = adamw if s["kind"] == "adamw" else s["step"] ** power
                spread = [1 + 1e-3 * seed for seed in s["seeds"]]
                series[quantity.name] = {
                    "driven": [[driven * one for one in spread]],
                    "remainder": [[size * one for one in spread]],
                }
        laws = [quantity.name for quantity in network.laws()]
        values = {"moments": [1], "loss": [1.0, 0.1], "laws": laws, "series": series}
        measured.append(Measured(cell, values, 1.0))
    return measured


def verdicts(measured):
    return [finding.verdict for finding in EXPERIMENT.conclude(measured)]


def test_verdicts_follow_what_was_measured():
    assert verdicts(planted()) == ["confirmed"] * 11
    broken = verdicts(planted(law=1e-6))
    assert [i for i, v in enumerate(broken) if v == "refuted"] == [0, 1, 2, 3, 6, 9]
    assert verdicts(planted(exponent=0.5))[4] == "refuted"
    assert verdicts(planted(control=1e-9))[5] == "refuted"
    assert verdicts(planted(still=1.0))[5] == "refuted"
    assert verdicts(planted(adamw=1e-5))[8] == "refuted"
    assert verdicts(planted(epsilon=0.5))[10] == "refuted"


def test_the_worst_seed_judges_a_law():
    measured = planted()
    (cell,) = [m for m in measured if m.cell.name == "attention-descent-0.005"]
    cell.values["series"]["V-O"]["driven"][0][2] = 1e-11
    assert verdicts(measured)[0] == "refuted"
    assert max(LawRuns(measured).driven(("attention", "V-O"))) == 1e-11


def test_table_and_figures_come_from_what_was_measured():
    measured = planted()
    table = EXPERIMENT.table(measured)
    assert set(table.network) == set(NETWORKS)
    assert set(EXPERIMENT.draw(measured, ())) == {name for name, _ in EXPERIMENT.figures}
