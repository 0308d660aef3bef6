"""Scale profiles of random networks do not pass for alignment, and do not hide it."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

import flagscope
from diagnose.planted import pair_group, records
from flagscope.diagnose import residual_record
from flagscope.engine.cache.norms import centred_columns, centred_rows
from flagscope.geometry import RankRule, prepared_map
from geometry.planted import haar, matrices, normal

SCANS, LEVEL = 40, 0.05
WIDTHS = (24, 64, 64, 32)
CLAIMS = ("p_familywise", "commutator_p_familywise", "gram_correlation_p_familywise")


def layers(seed, entries=torch.randn):
    generator = torch.Generator().manual_seed(seed)
    if entries is torch.randn:
        return [torch.randn(b, a, generator=generator) / a**0.5
                for a, b in itertools.pairwise(WIDTHS)]  # fmt: skip
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.standard_t(3, (b, a)), dtype=torch.float32)
            for a, b in itertools.pairwise(WIDTHS)]  # fmt: skip


def shared_profile(seed):
    """Rows of each map and columns of the next with the same scales, of sd .3."""
    maps = layers(seed)
    for i in range(len(maps) - 1):
        scale = (0.3 * normal(len(maps[i]), seed=1000 + 10 * seed + i)).exp().float()
        maps[i], maps[i + 1] = maps[i] * scale[:, None], maps[i + 1] * scale
    return maps


def dead_neurons(seed):
    """A quarter of the neurons zero in both maps."""
    maps = layers(seed)
    for i in range(len(maps) - 1):
        order = torch.randperm(len(maps[i]), generator=torch.Generator().manual_seed(seed))
        dead = order[: len(order) // 4]
        maps[i][dead], maps[i + 1][:, dead] = 0, 0
    return maps


def balanced(seed):
    """Scales of neurons chosen so that what a ReLU network conserves under training agrees."""
    maps = layers(seed)
    for i in range(len(maps) - 1):
        own = (0.3 * normal(len(maps[i]), seed=2000 + 10 * seed + i)).exp().float()
        maps[i] = maps[i] * own[:, None]
        scale = (maps[i + 1].norm(dim=0) / maps[i].norm(dim=1)).sqrt()
        maps[i], maps[i + 1] = maps[i] * scale[:, None], maps[i + 1] / scale
    return maps


def heavy_tails(seed):
    return layers(seed, "t3")


def scan(maps):
    modules = []
    for w in maps:
        linear = torch.nn.Linear(w.shape[1], w.shape[0])
        linear.weight.data = w
        modules += [linear, torch.nn.ReLU()]
    return flagscope.scan(torch.nn.Sequential(*modules[:-1]), workers=1).result


# The share of pairs that the maps as they are would be called aligned in, at .01.
SETTINGS = [(shared_profile, 0.4), (dead_neurons, 0.4), (balanced, 0.4), (heavy_tails, 0.0)]


@pytest.mark.parametrize(("setting", "without"), SETTINGS)
def test_random_networks_with_scale_profiles_make_no_more_claims_than_the_level(setting, without):
    results = [scan(setting(seed)) for seed in range(SCANS)]
    pairs = [pair for result in results for pair in result.pairs]
    assert len(pairs) == SCANS * (len(WIDTHS) - 2)
    claimed = [
        any((getattr(pair, name) or 1.0) <= LEVEL for pair in result.pairs for name in CLAIMS)
        for result in results
    ]
    # 1 in 1000 scans of the level itself would bring more.
    assert sum(claimed) <= stats.binom.ppf(0.999, SCANS, LEVEL)
    assert all(not pair.intersection_exact for pair in pairs)
    small = np.mean([pair.p <= 0.01 for pair in pairs])
    assert small <= stats.binom.ppf(0.999, len(pairs), 0.012) / len(pairs)
    raw = np.mean([pair.overlap_test.log10_p <= -2 for pair in pairs])
    assert raw >= without
    # What the guard says is what stands.
    for pair in pairs:
        own = pair.overlap_test.log10_p, pair.overlap_test.log10_p_profile
        assert pair.log10_p == max(value for value in own if value is not None)


@pytest.mark.parametrize("setting", [shared_profile, balanced])
def test_an_alignment_under_a_profile_is_found(setting):
    """Three directions of the neurons' space that both maps have, before the scales are set."""
    found = 0
    for seed in range(10):
        profile = setting(seed)
        plain = layers(seed)
        common = haar(1, WIDTHS[1], 3, seed=seed)[0].float()
        size = 2.0 * WIDTHS[1] ** 0.5 / WIDTHS[0] ** 0.5
        scales = [one / two for one, two in zip(profile, plain, strict=True)]
        one = plain[0] + size * common @ haar(1, WIDTHS[0], 3, seed=seed + 50)[0].float().mT
        two = plain[1] + size * haar(1, WIDTHS[2], 3, seed=seed + 90)[0].float() @ common.mT
        result = scan([scales[0] * one, scales[1] * two, profile[2]])
        found += result.pairs[0].p_familywise <= LEVEL
    assert found >= 9


def test_pairs_without_a_profile_are_left_as_they_are():
    pairs = [pair for seed in range(20) for pair in scan(layers(seed)).pairs]
    looked = [pair.overlap_test.log10_p_profile is not None for pair in pairs]
    # A fifth of the profiles are correlated by chance, and two of five pairs have a small p.
    assert np.mean(looked) < 0.35
    assert np.mean([pair.p <= 0.05 for pair in pairs]) < 0.05 + 4 * (0.05 / len(pairs)) ** 0.5


def test_too_few_live_coordinates_are_no_evidence():
    """Neurons that only one of the maps uses: nothing overlaps, and nothing is said."""
    w1, w2 = normal(40, 60, seed=1), normal(50, 40, seed=2)
    w1[:19], w2[:, 20:] = 0, 0
    (found,) = records(w1[None], w2[None])
    assert found.overlap_test.log10_p < -10
    assert found.p == found.commutator_p == found.gram_correlation_p == 1
    # With as many as there must be, what they say stands.
    w1[:12] = normal(12, 60, seed=3)
    (found,) = records(w1[None], w2[None])
    assert 0 < found.p < 1


@pytest.mark.parametrize(("alive", "known"), [(7, False), (8, True)])
def test_prepared_maps_that_share_too_few_coordinates_say_nothing_either(alive, known):
    scale, rule = torch.logspace(0, 3, 20).double(), RankRule.parse("numerical")
    scale[alive:] = 0
    w1, w2 = scale[:, None] * normal(20, 30, seed=1), normal(30, 20, seed=2) * scale
    maps = [
        prepared_map(lambda w=w: matrices(w[None]), read=bool(i), rule=rule)
        for i, w in enumerate((w1, w2))
    ]
    found = residual_record(pair_group(w1[None], w2[None]), *maps, rule=rule)
    assert found.overlap_test.log10_p < -10
    assert (found.overlap_test.log10_p_profile < 0) == known


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_the_mean_that_a_layernorm_takes_off_is_no_alignment(shared, mean):
    """Both maps have the direction (1, …, 1) in common, which the pair has not."""
    d, m, draws, rule = 48, 64, 150, RankRule.parse("signal")
    small = []
    for seed in range(draws):
        s1, s2 = ((0.4 * normal(d, seed=k * draws + seed)).exp() for k in (10, 10 + (not shared)))
        w1 = s1[:, None] * normal(d, m, seed=20 * draws + seed) + mean * normal(m, seed=seed)
        w2 = normal(m, d, seed=30 * draws + seed) * s2 + mean * normal(m, 1, seed=draws + seed)
        write, read = matrices(w1[None]), matrices(w2[None])
        sides = centred_rows(write), centred_columns(read)
        maps = [
            prepared_map(lambda w=w: w, read=i == 1, rule=rule, plain=lambda w=whole: w)
            for i, (w, whole) in enumerate(zip(sides, (write, read), strict=True))
        ]
        one = residual_record(pair_group(sides[0].values, sides[1].values), *maps, rule=rule)
        small.append((one.p, one.commutator_p, one.gram_correlation_p))
    for p in np.array(small).T:
        for level, times in ((0.05, 1.5), (0.01, 2.0)):
            # With one profile in both maps the size is somewhat more than the level.
            assert (p < level).sum() <= stats.binom.ppf(0.999, draws, times * level)
