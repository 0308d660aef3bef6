"""All p-values of a report answer for one family of tests."""

from math import comb

import numpy as np
import pytest
import torch

import flagscope
import reference
from diagnose.planted import heads, record
from flagscope.engine.run.error_rate import with_one_error_rate
from flagscope.errors import InputError
from flagscope.null import family_adjustment
from flagscope.records import EdgeRecord, HeadCluster
from geometry.planted import normal

KINDS = ("overlap", "commutator", "heads", "links")


@pytest.mark.parametrize("seed", range(6))
def test_adjustment_against_a_loop_over_every_test(seed):
    rng = np.random.default_rng(seed)
    tests = {kind: int(rng.integers(1, 40)) for kind in KINDS}
    listed = [kind for kind in KINDS for _ in range(int(rng.integers(1, tests[kind] + 1)))]
    p = rng.uniform(size=len(listed)) ** rng.integers(1, 6)
    p[rng.integers(len(p))] = p[0]  # a tie
    values: list[float | None] = np.log10(p).tolist()
    # Tests that were not possible stand among them and count for nothing.
    at = sorted(rng.integers(0, len(values), 3), reverse=True)
    kinds = list(listed)
    for i in at:
        values.insert(i, None)
        kinds.insert(i, KINDS[0])
    found = family_adjustment(values, kinds, tests=tests)
    adjusted, familywise = reference.weighted_adjustment(p.tolist(), listed, tests)
    known = [i for i, value in enumerate(values) if value is not None]
    assert [found.p_adjusted[i] for i in known] == pytest.approx(adjusted.tolist(), rel=1e-9)
    assert [found.p_familywise[i] for i in known] == pytest.approx(familywise.tolist(), rel=1e-9)
    total = sum(tests.values())
    harmonic = sum(1 / k for k in range(1, total + 1))
    by = np.array([found.p_adjusted_dependent[i] for i in known])
    assert (by >= adjusted - 1e-12).all()
    small = adjusted * harmonic < 0.9
    np.testing.assert_allclose(by[small], adjusted[small] * harmonic, rtol=1e-9)
    for i in set(range(len(values))) - set(known):
        assert found.p_adjusted[i] is found.p_familywise[i] is None


def test_kinds_have_equal_shares_of_the_level():
    """Of uniform p-values each kind claims with probability .05/G, few tests or many."""
    rng = np.random.default_rng(0)
    tests = {"few": 2, "many": 200, "some": 20}
    kinds = [kind for kind, count in tests.items() for _ in range(count)]
    draws, claims = 2000, dict.fromkeys(tests, 0)
    anything = 0
    for _ in range(draws):
        p = np.log10(rng.uniform(size=len(kinds))).tolist()
        found = family_adjustment(p, kinds, tests=tests).p_familywise
        claimed = {kind for kind, value in zip(kinds, found, strict=True) if value <= 0.05}
        anything += bool(claimed)
        for kind in claimed:
            claims[kind] += 1
    level = 0.05 / 3
    for kind, count in claims.items():
        assert abs(count / draws - level) < 4 * (level / draws) ** 0.5, kind
    assert anything / draws < 0.05 + 4 * (0.05 / draws) ** 0.5


def test_false_discoveries_over_all_kinds_are_kept():
    rng = np.random.default_rng(1)
    tests = {"pairs": 10, "links": 300}
    kinds = ["pairs"] * 10 + ["links"] * 300
    real = np.array([i in (0, 1, 2, 10, 11, 12, 13) for i in range(310)])
    shares = []
    for _ in range(400):
        p = rng.uniform(size=310)
        p[real] *= 1e-5
        found = np.array(family_adjustment(np.log10(p).tolist(), kinds, tests=tests).p_adjusted)
        claimed = found <= 0.1
        assert claimed[real].all()
        shares.append((claimed & ~real).sum() / max(1, claimed.sum()))
    shares = np.array(shares)
    assert shares.mean() < 0.1 + 4 * shares.std() / 20


@pytest.mark.parametrize(
    ("values", "kinds", "tests"),
    [
        ([-1.0], [], {"a": 1}),
        ([-1.0, -2.0], ["a", "a"], {"a": 1}),
        ([-1.0], ["a"], {"b": 1}),
        ([0.5], ["a"], {"a": 1}),
        ([float("nan")], ["a"], {"a": 1}),
    ],
)
def test_what_does_not_fit_is_refused(values, kinds, tests):
    with pytest.raises(InputError):
        family_adjustment(values, kinds, tests=tests)


# Records


def pairs():
    found = [record(normal(12, 16, seed=s), normal(20, 12, seed=s + 50)) for s in range(3)]
    tied = normal(12, 16, seed=9)
    return [
        *found,
        record(tied, tied.mT + 0.25 * normal(16, 12, seed=10)),
        record(torch.zeros(12, 16).double(), tied.mT),
    ]


def groups():
    plain = heads(normal(6, 4, 48, seed=1))
    maps = normal(6, 4, 48, seed=2)
    maps[1], maps[4] = maps[0] + 0.05 * maps[1], maps[3] + 0.05 * maps[4]
    return [plain, heads(maps), heads(normal(1, 4, 48, seed=3))]


def edge(log10_p, composition):
    missing = dict.fromkeys(set(EdgeRecord.model_fields) - {"p_familywise"})
    fields = {
        "source": "L0H0.o", "target": "L1H0.q", "stack": "main", "layer_from": 0, "head_from": 0,
        "layer_to": 1, "head_to": 0, "space": "q", "overlap_ratio": 2.0,
        "p": None if log10_p is None else 10**log10_p, "log10_p": log10_p,
        "composition_log10_p": composition,
    }  # fmt: skip
    return EdgeRecord(**(missing | fields))


def entries(family):
    """(kind, record, prefix, log10 p) of every test that a report lists."""
    for pair in family.pairs:
        yield "overlap", pair, "", pair.log10_p
        for kind, prefix in (("commutator", "commutator_"), ("correlation", "gram_correlation_")):
            p = getattr(pair, f"{prefix}p")
            yield kind, pair, prefix, None if p is None else np.log10(p)
    for group in family.heads:
        yield "heads", group, "", group.log10_p
        yield "shared", group, "shared_", group.shared_log10_p
        for one in group.near_copies:
            yield "copies", one, "", one.log10_p
        for one in group.cluster_tests:
            yield "clusters", one, "", one.log10_p
    for one in family.edges:
        yield "link_overlap", one, "", one.log10_p
        yield "link_composition", one, "composition_", one.composition_log10_p


def test_every_test_of_a_report_is_adjusted_for_all_of_them():
    hidden = 57
    edges = [edge(-6.0, -3.0), edge(-1.0, None), edge(None, -0.2)]
    family = with_one_error_rate(pairs(), groups(), edges, edge_tests=hidden)
    rows = list(entries(family))
    listed = [row for row in rows if row[3] is not None]
    kinds = [kind for kind, *_ in listed]
    assert family.tests == {
        "overlap": 4, "commutator": 4, "correlation": 4, "heads": 2, "shared": 2,
        "copies": 2 * comb(6, 2), "clusters": 2 * 3,
        "link_overlap": hidden, "link_composition": hidden,
    }  # fmt: skip
    # More clusters than groups, and more links than are listed.
    assert kinds.count("clusters") >= 2
    assert kinds.count("link_overlap") == 2
    p = [10.0**value for *_, value in listed]
    adjusted, familywise = reference.weighted_adjustment(p, kinds, family.tests)
    for (_, one, prefix, _), bh, bonferroni in zip(listed, adjusted, familywise, strict=True):
        assert getattr(one, f"{prefix}p_adjusted") == pytest.approx(bh, rel=1e-9, abs=0)
        assert getattr(one, f"{prefix}p_familywise") == pytest.approx(bonferroni, rel=1e-9, abs=0)
    for _, one, prefix, value in rows:
        assert (getattr(one, f"{prefix}p_adjusted") is None) == (value is None)
    # The test at the dominant ranks is a part of the combined one, and weighs as that does.
    for pair in family.pairs[:4]:
        own = pair.overlap_test.dominant_log10_p
        if own is not None:
            expected = min(1.0, 10**own * len(family.tests) * family.tests["overlap"])
            assert pair.overlap_test.dominant_p_familywise == pytest.approx(
                expected, rel=1e-9, abs=0
            )
    # Under any dependence by Benjamini and Yekutieli, of the overlaps.
    harmonic = sum(1 / k for k in range(1, sum(family.tests.values()) + 1))
    for one in (*family.pairs, *family.heads):
        if one.p_adjusted is None:
            assert one.p_adjusted_dependent is None
        else:
            expected = min(1.0, one.p_adjusted * harmonic)
            assert one.p_adjusted_dependent == pytest.approx(expected, rel=1e-9, abs=0)


def test_an_empty_report_has_no_tests():
    family = with_one_error_rate([], [], [], edge_tests=0)
    assert family.tests == {}
    broken = with_one_error_rate(pairs()[4:], [], [], edge_tests=0)
    assert broken.tests == {}
    assert broken.pairs[0].p_familywise is None


def test_p_values_that_underflow_are_adjusted():
    one = pairs()[0].model_copy(update={"log10_p": -4000.0, "p": 0.0, "commutator_p": 0.0})
    (found,) = with_one_error_rate([one], [], [], edge_tests=0).pairs
    assert found.p_familywise == 0.0
    assert found.commutator_p_familywise < 1e-306


def test_groups_of_heads_with_several_clusters_are_scanned():
    """Two near-copies of three heads in each group: more clusters than groups."""
    d, count, width = 96, 12, 8

    def weights(seed):
        maps = normal(count, width, d, seed=seed)
        for first in (0, 4):
            for i in (1, 2):
                maps[first + i] = maps[first] + 0.05 * maps[first + i]
        return maps.reshape(count * width, d).float()

    state = {
        "h.0.attn.c_attn.weight": torch.cat([weights(s).T for s in (1, 2, 3)], 1),
        "h.0.attn.c_proj.weight": weights(4),
        "h.0.mlp.c_fc.weight": normal(d, 4 * d, seed=5).float(),
        "h.0.mlp.c_proj.weight": normal(4 * d, d, seed=6).float(),
        "wte.weight": normal(20, d, seed=7).float(),
        "h.0.ln_1.weight": torch.ones(d),
        "h.0.ln_2.weight": torch.ones(d),
    }
    config = {"model_type": "gpt2", "n_head": count, "n_embd": d, "n_layer": 1}
    result = flagscope.scan(state, config=config, only="heads", workers=1).result
    assert result.tests["clusters"] == 4 * 6
    for group in result.heads:
        assert sorted(group.clusters) == [[0, 1, 2], [4, 5, 6]]
        assert len([one for one in group.cluster_tests if one.p_familywise < 0.01]) == 2
        assert all(isinstance(one, HeadCluster) for one in group.cluster_tests)
