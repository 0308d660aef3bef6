import math

import numpy as np
import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    RankRule,
    energy_rank,
    numerical_rank,
    participation_of_moments,
    participation_ratio,
)
from geometry.planted import haar_bases, map_with_values, seeded


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "n", "r"), [(32, 200, 31), (200, 32, 1), (120, 120, 60), (9, 7, 0)])
def test_planted_rank_is_found_from_values_and_from_grams(dtype, m, n, r):
    # All planted values are 1, the hardest case for the spurious ones of a Gram.
    matrix = map_with_values([1.0] * r, m, n, generator=seeded(r)).to(dtype)
    values = torch.linalg.svdvals(matrix)
    assert numerical_rank(values, shape=(m, n)).item() == r
    assert np.linalg.matrix_rank(matrix.numpy()) == r
    gram = matrix @ matrix.mT if m <= n else matrix.mT @ matrix
    roots = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    assert numerical_rank(roots, shape=(m, n), gram=True).item() == r


@pytest.mark.parametrize("shape", [(400, 5), (5, 400)])
@pytest.mark.parametrize("gram", [False, True])
def test_the_floor_is_that_of_the_longer_side(shape, gram):
    floor = 400 * torch.finfo(torch.float64).eps
    floor = math.sqrt(floor) if gram else floor
    values = torch.tensor([[1.0, 1.01 * floor], [1.0, 0.99 * floor]], dtype=torch.float64)
    assert numerical_rank(values, shape=shape, gram=gram).tolist() == [2, 1]
    assert numerical_rank(8.0 * values, shape=shape, gram=gram).tolist() == [2, 1]


def test_a_gram_needs_more_than_the_root_of_epsilon():
    # Spurious eigenvalues of a Gram exceed ε·σ_1², so √ε·σ_1 would count some of them.
    matrix = map_with_values([1.0] * 200, 300, 1200, generator=seeded())
    roots = torch.linalg.eigvalsh(matrix @ matrix.mT).clamp(min=0).sqrt()
    assert (roots > math.sqrt(torch.finfo(torch.float64).eps)).sum() > 200
    assert numerical_rank(roots, shape=(300, 1200), gram=True).item() == 200


def test_values_below_the_storage_noise_do_not_count():
    exact = map_with_values([3.0, 1.0, 0.5], 40, 60, generator=seeded(4))
    stored = exact.bfloat16().double()
    noise = torch.linalg.matrix_norm(stored - exact, ord=2).item()
    values = torch.linalg.svdvals(stored)
    assert numerical_rank(values, shape=(40, 60)).item() == 40
    assert numerical_rank(values, shape=(40, 60), noise=noise).item() == 3


def test_numerical_rank_in_batches():
    values = torch.tensor([[2.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert numerical_rank(values, shape=(3, 4)).tolist() == [3, 1, 0]
    noise = torch.tensor([0.7, 0.7, 0.7])
    assert numerical_rank(values, shape=(3, 4), noise=noise).tolist() == [2, 1, 0]
    assert numerical_rank(values[:, :0], shape=(0, 4)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_participation_ratio_by_its_definition(scale):
    matrix = torch.randn(6, 9, generator=seeded()) * scale
    values = torch.linalg.svdvals(matrix.double())
    expected = ((values**2).sum() ** 2 / (values**4).sum()).item()
    found = participation_ratio(torch.linalg.svdvals(matrix)).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_participation_ratio_at_rank_zero_one_and_full():
    values = torch.tensor([[0.0, 0.0], [7.0, 0.0], [7.0, 7.0]])
    assert participation_ratio(values).tolist() == [0.0, 1.0, 2.0]
    assert participation_ratio(values[:, :0]).tolist() == [0.0] * 3


def test_participation_of_moments_is_that_of_the_values():
    values = torch.rand(4, 7, generator=seeded()).double()
    moments = values.square().sum(-1), values.pow(4).sum(-1)
    torch.testing.assert_close(participation_of_moments(*moments), participation_ratio(values))
    assert participation_of_moments(torch.zeros(2), torch.zeros(2)).tolist() == [0.0, 0.0]


def test_energy_rank_by_direct_search():
    values = torch.rand(50, 7, generator=seeded(), dtype=torch.float64)
    for fraction in (0.1, 0.5, 0.9, 0.999):
        for row, found in zip(values, energy_rank(values, fraction=fraction), strict=True):
            power = sorted((row**2).tolist(), reverse=True)
            direct = next(
                r for r in range(8) if math.fsum(power[:r]) >= fraction * math.fsum(power)
            )
            assert found == direct


def test_energy_rank_at_ties_and_limits():
    assert energy_rank(torch.tensor([3.0, 1.0]), fraction=0.9).item() == 1
    assert energy_rank(torch.tensor([1.0, 1e-12, 0.0]), fraction=1.0).item() == 2
    assert energy_rank(torch.zeros(3), fraction=0.5).item() == 0
    assert energy_rank(torch.zeros(2, 0), fraction=0.5).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("participation", 3), ("numerical", 4), ("energy:0.5", 2), ("energy:1", 4), ("fixed:2", 2)],
)
def test_rank_rules(text, expected):
    values = torch.tensor([1.0, 1.0, 1.0, 0.1, 1e-9])
    rule = RankRule.parse(text)
    assert RankRule.parse(str(rule)) == rule
    assert rule.rank(values, shape=(5, 5)) == expected
    batch = torch.stack([values, torch.zeros(5)])
    assert rule.ranks(batch, shape=(5, 5)).tolist() == [expected, 0]


def test_no_rule_exceeds_the_numerical_rank():
    values = torch.tensor([1.0, 1.0, 0.4])
    for text in ("participation", "energy:1", "fixed:3"):
        assert RankRule.parse(text).rank(values, shape=(3, 3), noise=0.5) == 2
    assert RankRule.parse("participation").rank(values.bfloat16(), shape=(3, 3)) == 2


def test_the_signal_rule_takes_the_count_and_may_be_zero():
    values = torch.tensor([[1.0, 1.0, 0.4], [1.0, 1.0, 0.4], [1.0, 1.0, 0.4], [0.0, 0.0, 0.0]])
    rule = RankRule.parse("signal")
    assert str(rule) == "signal"
    signal = torch.tensor([0, 1, 3, 2])
    assert rule.ranks(values, shape=(3, 3), signal=signal).tolist() == [0, 1, 3, 0]
    assert rule.ranks(values, shape=(3, 3), signal=signal, noise=0.5).tolist() == [0, 1, 2, 0]
    assert rule.rank(values[0], shape=(3, 3), signal=1) == 1
    # Other rules do not look at it.
    other = RankRule.parse("fixed:2").ranks(values, shape=(3, 3), signal=signal)
    assert other.tolist() == [2, 2, 2, 0]


def test_the_signal_rule_needs_the_count():
    values = torch.tensor([1.0, 0.5])
    rule = RankRule.parse("signal")
    with pytest.raises(InputError, match="equilibrated") as caught:
        rule.rank(values, shape=(2, 2))
    assert "signal_rank_of" in str(caught.value.hint)
    with pytest.raises(InputError, match="signal has shape"):
        rule.ranks(values, shape=(2, 2), signal=torch.tensor([1, 2]))
    for bad in (torch.tensor(1.0), -1):
        with pytest.raises(InputError, match="whole"):
            rule.ranks(values, shape=(2, 2), signal=bad)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rank",
        "energy",
        "energy:0",
        "energy:1.5",
        "energy:x",
        "energy:nan",
        "numerical:3",
        "signal:3",
        "participation:0.5",
        "fixed",
        "fixed:0",
        "fixed:1.5",
        "fixed:nan",
        "fixed:inf",
    ],
)
def test_bad_rules_are_refused(text):
    with pytest.raises(InputError) as caught:
        RankRule.parse(text)
    assert caught.value.hint


def test_bad_arguments_are_refused():
    values = torch.tensor([1.0, 0.5])
    with pytest.raises(InputError, match="negative"):
        numerical_rank(-values, shape=(2, 2))
    with pytest.raises(InputError, match="do not fit"):
        numerical_rank(values, shape=(1, 1))
    for noise in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="noise"):
            numerical_rank(values, shape=(2, 2), noise=noise)
    with pytest.raises(InputError, match="noise has shape"):
        numerical_rank(values, shape=(2, 2), noise=torch.ones(3))
    with pytest.raises(InputError, match="NaN"):
        participation_ratio(values / 0)
    with pytest.raises(InputError, match="one dimension"):
        RankRule("numerical").rank(values[None], shape=(2, 2))


def test_rank_rules_do_not_depend_on_the_basis():
    generator = seeded(8)
    matrix = map_with_values([4.0, 2.0, 1.0, 0.3], 8, 6, generator=generator)
    turned = haar_bases(8, 8, generator=generator) @ matrix
    one, other = (participation_ratio(torch.linalg.svdvals(w)) for w in (matrix, turned))
    torch.testing.assert_close(one, other)
