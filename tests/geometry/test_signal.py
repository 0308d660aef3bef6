import math

import pytest
import torch
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry import equilibrated, signal_rank, signal_rank_of
from flagscope.geometry import signal as module
from flagscope.null import tracy_widom_quantile
from geometry.planted import haar_bases, seeded

LAWS = [
    "gaussian",
    "uniform",
    "orthogonal",
    "bf16",
    "fp8",
    "int4",
    "row scales",
    "dead rows",
    "both scales",
    "t3",
]


def null_maps(law: str, n: int, p: int, m: int, generator: torch.Generator) -> Tensor:
    """Maps without signal: independent entries, rounded or scaled, or a Haar frame."""
    w = torch.randn(n, p, m, generator=generator, dtype=torch.float64)
    scale = torch.randn(n, p, 1, generator=generator, dtype=torch.float64)
    match law:
        case "uniform":
            return torch.rand(n, p, m, generator=generator, dtype=torch.float64) - 0.5
        case "orthogonal":
            return haar_bases(n, m, p, generator=generator).mT
        case "bf16":
            return w.bfloat16().double()
        case "fp8":
            return w.to(torch.float8_e4m3fn).double()
        case "int4":
            step = w.abs().amax(-1, keepdim=True) / 7
            return (w / step).round() * step
        case "row scales":
            return w * (0.3 * scale).exp()
        case "dead rows":
            return w * (torch.rand(n, p, 1, generator=generator) > 0.25)
        case "both scales":
            return w * (0.5 * scale).exp() * torch.linspace(-1, 1, m).double().exp()
        case "t3":
            others = torch.randn(3, n, p, m, generator=generator, dtype=torch.float64)
            return w / others.square().mean(0).sqrt()
    return w


def direct(sigma: list[float], p: int, m: int) -> int:
    """The count by its definition, from all singular values in descending order."""
    p, m = min(p, m), max(p, m)
    a, b = math.sqrt(m - 1), math.sqrt(p)
    edge = (a + b) ** 2 + 2.0234 * (a + b) * (1 / a + 1 / b) ** (1 / 3)
    r = 0
    while True:
        variance = sum(s * s for s in sigma[r:]) / ((p - r) * (m - r))
        new = sum(s * s > variance * edge for s in sigma)
        if new == r:
            return r
        r = new


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("p", "m", "n"), [(2, 64, 300), (8, 8, 300), (8, 64, 300), (64, 64, 60), (64, 256, 20)]
)
def test_maps_without_signal_have_rank_zero(law, p, m, n):
    found = signal_rank_of(null_maps(law, n, p, m, seeded(p + m)))
    # At 1 % the number of others is above 3 + 4 standard errors with probability 3e-5.
    limit = 0.01 * n + 4 * math.sqrt(0.01 * n)
    assert (found > 0).sum() <= limit


def test_without_equilibration_a_profile_counts_as_signal():
    w = null_maps("row scales", 1, 64, 256, seeded())[0]
    sigma = torch.linalg.svdvals(w)
    square = float(w.square().sum())
    assert signal_rank(sigma, square=square, shape=(64, 256)).ranks > 3
    assert signal_rank_of(w) == 0


@pytest.mark.parametrize(("p", "m"), [(64, 64), (64, 256), (256, 64)])
@pytest.mark.parametrize("k", [1, 3])
def test_planted_directions_are_counted(p, m, k):
    # A direction of strength c (pm)^{1/4} is at the transition for c = 1; at 2 its value is 1.25
    # times (√p + √m) for a square map, well beyond the edge.
    generator = seeded(k)
    strength = torch.linspace(2.0, 3.0, k, dtype=torch.float64) * (p * m) ** 0.25
    left, right = (haar_bases(40, n, k, generator=generator) for n in (p, m))
    noise = torch.randn(40, p, m, generator=generator, dtype=torch.float64)
    found = signal_rank_of(noise + left * strength @ right.mT)
    assert (found == k).double().mean() >= 0.9
    weak = signal_rank_of(noise + 0.2 * left * strength @ right.mT)
    assert (weak == 0).all()


@pytest.mark.parametrize("shape", [(8, 8), (30, 90), (90, 30), (2, 9)])
def test_agrees_with_the_definition(shape):
    generator = seeded(5)
    p, m = shape
    for power in (0.0, 0.3, 1.0, 2.0):
        decay = torch.arange(1, min(p, m) + 1, dtype=torch.float64) ** -power
        left, right = (haar_bases(n, min(p, m), generator=generator) for n in (p, m))
        noise = 0.02 * torch.randn(p, m, generator=generator, dtype=torch.float64)
        sigma = torch.linalg.svdvals(left * decay @ right.mT + noise)
        square = float(sigma.square().sum())
        found = signal_rank(sigma, square=square, shape=shape)
        assert int(found.ranks) == direct(sigma.tolist(), p, m)
        assert bool(found.complete)
        # In any order, and from the leading values alone.
        assert signal_rank(sigma.flip(0), square=square, shape=shape).ranks == found.ranks
        if found.ranks + 1 < min(p, m):
            few = signal_rank(sigma[: found.ranks + 1], square=square, shape=shape)
            assert few.ranks == found.ranks
            assert bool(few.complete)


def test_too_few_leading_values_are_told():
    sigma = torch.tensor([40.0, 30.0, 20.0, 12.0])
    for k, (rank, complete) in enumerate([(0, False), (1, False), (2, False), (3, False)]):
        count = signal_rank(sigma[:k], square=6400.0, shape=(64, 64))
        assert (int(count.ranks), bool(count.complete)) == (rank, complete)
    count = signal_rank(sigma, square=6400.0, shape=(64, 64))
    assert (int(count.ranks), bool(count.complete)) == (3, True)


@pytest.mark.parametrize("gram", [False, True])
def test_exactly_low_rank_maps_have_their_numerical_rank(gram):
    generator = seeded(2)
    for r in (1, 2, 5):
        w = haar_bases(48, r, generator=generator) @ torch.diag(torch.arange(1.0, r + 1).double())
        w = w @ haar_bases(64, r, generator=generator).mT
        sigma = torch.linalg.svdvals(w)
        if gram:
            sigma = torch.linalg.eigvalsh(w @ w.mT).clamp_min(0).sqrt()
        square = float(w.square().sum())
        assert signal_rank(sigma, square=square, shape=(48, 64), gram=gram).ranks == r
        assert signal_rank_of(w) == r
        # The energy beyond r values is round-off, of either sign.
        for nudge in (-1e-15, 0, 1e-15):
            few = signal_rank(
                sigma.sort(descending=True).values[: r + 1],
                square=square * (1 + nudge),
                shape=(48, 64),
                gram=gram,
            )
            assert few.ranks == r


def test_constant_maps_have_one_direction_and_thin_ones_none():
    assert signal_rank_of(torch.ones(2, 20, 30)).tolist() == [1, 1]
    w = torch.randn(50, 1, 40, generator=seeded())
    assert signal_rank_of(w).sum() == 0
    assert signal_rank_of(w.mT).sum() == 0
    assert signal_rank_of(torch.ones(1, 1)) == 0
    assert signal_rank_of(torch.zeros(3, 4)) == 0
    assert signal_rank_of(torch.zeros(2, 0, 4)).tolist() == [0, 0]
    assert signal_rank_of(3 * torch.eye(20)) == 0


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_any_size_of_values(size):
    sigma = torch.tensor([40.0, 12.0], dtype=torch.float64)
    if size > 1:
        # The square itself must be a number.
        size = 1e150
        count = signal_rank(sigma * size, square=4096.0 * size * size, shape=(64, 64))
        assert (int(count.ranks), bool(count.complete)) == (1, True)
    w = torch.randn(40, 60, generator=seeded(), dtype=torch.float64) + 1
    assert signal_rank_of(w * size) == signal_rank_of(w) == 1


def test_batches_with_dead_rows_agree_with_single_maps(monkeypatch):
    generator = seeded(9)
    w = torch.randn(2, 3, 30, 50, generator=generator)
    w += torch.rand(2, 3, 1, 1, generator=generator) * torch.ones(30, 50)
    w[0, 1, 5:20] = 0
    w[1, 2, :, 10:] = 0
    together = signal_rank_of(w)
    monkeypatch.setattr(module, "_BLOCK", 2000)
    assert torch.equal(signal_rank_of(w), together)
    for i in range(2):
        for j in range(3):
            alive = w[i, j][(w[i, j] != 0).any(1)][:, (w[i, j] != 0).any(0)]
            assert signal_rank_of(alive) == together[i, j]
            assert signal_rank_of(w[i, j].mT) == together[i, j]
    assert together.max() == 1


@pytest.mark.parametrize("shape", [(3, 40, 7), (3, 7, 40)])
def test_eigenvalues_are_those_of_the_smaller_gram(shape, monkeypatch):
    sizes = []
    solve = torch.linalg.eigvalsh
    monkeypatch.setattr(
        torch.linalg, "eigvalsh", lambda gram: (sizes.append(gram.shape[-2:]), solve(gram))[1]
    )
    signal_rank_of(torch.randn(shape, generator=seeded(4)))
    assert set(sizes) == {(7, 7)}


def test_large_maps_in_their_own_precision(monkeypatch):
    generator = seeded(3)
    w = torch.randn(100, 300, generator=generator)
    w += (
        2
        * (100 * 300) ** 0.25
        * (
            haar_bases(100, 4, generator=generator) @ haar_bases(300, 4, generator=generator).mT
        ).float()
    )
    exact = signal_rank_of(w.double())
    monkeypatch.setattr(module, "_LARGE", 10)
    assert signal_rank_of(w) == exact == 4


def test_the_point_of_the_edge():
    assert abs(module._EDGE_POINT - tracy_widom_quantile(0.01)) < 1e-4


def test_the_energy_of_an_equilibrated_map_is_its_size():
    even = equilibrated(torch.randn(20, 30, generator=seeded(), dtype=torch.float64))
    assert float(even.values.square().sum()) == pytest.approx(600)


def test_bad_arguments_are_refused():
    sigma = torch.tensor([3.0, 1.0])
    with pytest.raises(InputError, match="negative"):
        signal_rank(-sigma, square=10.0, shape=(2, 2))
    with pytest.raises(InputError, match="less than"):
        signal_rank(sigma, square=9.0, shape=(5, 5))
    with pytest.raises(InputError, match="square must be finite"):
        signal_rank(sigma, square=math.inf, shape=(5, 5))
    with pytest.raises(InputError, match="rows must be"):
        signal_rank(sigma, square=10.0, shape=(-5, 5))
    with pytest.raises(InputError, match="columns has shape"):
        signal_rank(sigma, square=10.0, shape=(5, torch.tensor([5, 6])))
    with pytest.raises(InputError, match="NaN"):
        signal_rank_of(torch.full((3, 3), math.nan))


@pytest.mark.parametrize("planted", [0.0, 0.5, 1.5, 4.0])
def test_nothing_stands_out_where_the_signal_rank_is_0(planted: float) -> None:
    # One direction of a size around the edge of the bulk: one answer by both, whatever it is.
    generator = seeded(11)
    answers = set()
    for _ in range(20):
        w = torch.randn(48, 160, generator=generator, dtype=torch.float64)
        u = torch.randn(48, 1, generator=generator, dtype=torch.float64)
        v = torch.randn(1, 160, generator=generator, dtype=torch.float64)
        w += planted * (48**0.5 + 160**0.5) * (u / u.norm()) @ (v / v.norm())
        even = equilibrated(w).values
        found = module.nothing_stands_out(
            even @ even.mT, square=float(even.square().sum()), shape=(48, 160)
        )
        assert found == (int(signal_rank_of(w)) == 0)
        answers.add(found)
    assert (planted < 1) in answers
