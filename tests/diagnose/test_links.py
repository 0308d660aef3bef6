"""Head-to-head links against explicit circuits, planted copies and random heads."""

import numpy as np
import pytest
import torch

from flagscope.diagnose import LinkName, ScaledEnds, divided_link, head_ends, head_links
from flagscope.diagnose.second_look import second_log10_p
from flagscope.geometry import Matrices, scale_profile
from flagscope.null import Significance
from geometry.planted import haar, normal

D, R, H = 48, 5, 4
NAME = LinkName("decoder", 2, 3, "q")


def bare(values):
    n = len(values)
    return Matrices(values, torch.zeros(n).double(), torch.zeros(n).double())


def heads(seed, count=H):
    return normal(count, R, D, seed=seed)


def linked(o, v, q, k, *, top=100):
    return listed(head_ends(bare(o.mT), v), head_ends(bare(q), k), top=top)


def listed(writers, readers, *, top=100):
    links = head_links(NAME, writers, readers)
    return [links.record(i, j) for _, i, j in links.furthest(top)], links.tested


def test_overlap_and_composition_are_those_of_the_explicit_circuits():
    o, v, q, k = heads(1).mT, heads(2), heads(3), heads(4)
    records, tested = linked(o, v, q, k)
    assert tested == len(records) == H * H
    for one in records:
        i, j = one.head_from, one.head_to
        assert (one.source, one.target) == (f"L2H{i}.o", f"L3H{j}.q")
        w_ov, w_qk = (o[i] @ v[i]).numpy(), (k[j].mT @ q[j]).numpy()
        score = np.linalg.norm(w_qk @ w_ov) / (np.linalg.norm(w_qk) * np.linalg.norm(w_ov))
        assert one.composition == pytest.approx(score, rel=1e-12)
        assert one.composition_ratio == pytest.approx(score**2 * D, rel=1e-12)
        u = np.linalg.svd(o[i].numpy(), full_matrices=False)[0]
        w = np.linalg.svd(q[j].numpy(), full_matrices=False)[2]
        total = np.linalg.norm(w @ u) ** 2
        assert one.overlap_ratio == pytest.approx(total * D / R**2, rel=1e-12)


@pytest.mark.parametrize(
    ("across", "ends"),
    [
        ((False, False), ("L2H1.o", "L3H0.q")),
        ((False, True), ("L2H1.o", "L3H0.cross.q")),
        ((True, False), ("L2H1.cross.o", "L3H0.q")),
        ((True, True), ("L2H1.cross.o", "L3H0.cross.q")),
    ],
)
def test_each_end_of_a_link_says_its_own_attention(across, ends):
    name = LinkName("decoder", 2, 3, "q", across)
    assert (name.source(1), name.target(0)) == ends


def test_a_planted_link_is_found_first_and_far_from_chance():
    o, v, q, k = heads(5).mT, heads(6), heads(7), heads(8)
    q[2] = normal(R, R, seed=9) @ o[1].mT  # head 2 reads exactly what head 1 writes
    first = linked(o, v, q, k, top=3)[0][0]
    assert (first.head_from, first.head_to) == (1, 2)
    assert first.overlap_ratio == pytest.approx(D / R)
    assert first.log10_p < -20
    assert first.composition_log10_p < -5


def test_composition_can_stand_out_where_overlap_does_not():
    o, v, q, k = heads(10).mT, heads(11), heads(12), heads(13)
    # One direction in five, but the one on which both circuits put all their weight.
    o[0][:, 0] = q[3][0] / torch.linalg.vector_norm(q[3][0]) * torch.linalg.vector_norm(o[0][:, 0])
    v[0][1:] *= 1e-3
    k[3][1:] *= 1e-3
    records, _ = linked(o, v, q, k, top=2)
    assert (records[0].head_from, records[0].head_to) == (0, 3) or (
        records[1].head_from, records[1].head_to) == (0, 3)  # fmt: skip
    (one,) = [r for r in records if (r.head_from, r.head_to) == (0, 3)]
    assert one.composition > 0.9
    assert one.composition_ratio > 20 * one.overlap_ratio / 3


def test_neither_number_knows_the_basis_inside_a_head_nor_of_the_stream():
    o, v, q, k = heads(14).mT, heads(15), heads(16), heads(17)
    before, _ = linked(o, v, q, k)
    g, turn = normal(R, R, seed=18), haar(1, D, D, seed=19)[0]
    inverse = torch.linalg.inv(g)
    after, _ = linked(turn @ o @ inverse, g @ v, inverse.mT @ q @ turn.mT, g @ k)
    for one, two in zip(before, after, strict=True):
        assert (one.source, one.target) == (two.source, two.target)
        assert two.overlap_ratio == pytest.approx(one.overlap_ratio, rel=1e-9)
        assert two.composition == pytest.approx(one.composition, rel=1e-9)


def test_random_heads_are_called_as_often_as_the_level_says():
    z, p = [], []
    for seed in range(40):
        maps = [normal(8, R, D, seed=100 + 4 * seed + i) for i in range(4)]
        records, _ = linked(maps[0].mT, maps[1], maps[2], maps[3])
        z += [(r.overlap_z, r.composition_z) for r in records]
        p += [(r.log10_p, r.composition_log10_p) for r in records]
    z, n = np.array(z), len(z)
    assert n == 40 * 64
    assert np.all(np.abs(z.mean(0)) < 4 / np.sqrt(n))
    # The variance of a squared normal bounds that of z² here up to its kurtosis, below 9.
    assert np.all(np.abs((z**2).mean(0) - 1) < 4 * np.sqrt(8 / n))
    for level in (0.05, 0.01):
        size = (np.array(p) < np.log10(level)).mean(0)
        assert np.all(size < level + 4 * np.sqrt(level * (1 - level) / n) + level / 2)
        assert np.all(size > level / 2)


def test_the_list_is_bounded_and_holds_the_furthest_of_both_kinds():
    maps = [normal(12, R, D, seed=s) for s in range(4)]
    every, tested = linked(maps[0].mT, *maps[1:], top=1000)
    few, tested_few = linked(maps[0].mT, *maps[1:], top=10)
    assert tested == tested_few == 144 == len(every)
    assert len(few) == 10
    named = {(r.source, r.target) for r in few}
    by_composition = sorted(every, key=lambda r: -r.composition_z)[:5]
    assert {(r.source, r.target) for r in by_composition} <= named
    assert few[0].overlap_z == max(r.overlap_z for r in every)
    assert [r.overlap_z for r in few] == sorted((r.overlap_z for r in few), reverse=True)


@pytest.mark.parametrize("fault", [float("nan"), 0.0])
def test_heads_that_cannot_be_measured_are_left_out(fault):
    o, v, q, k = heads(20).mT, heads(21), heads(22), heads(23)
    o[1] = fault
    q[2] = fault
    records, tested = linked(o, v, q, k)
    assert tested == len(records) == 9
    assert all(r.head_from != 1 and r.head_to != 2 for r in records)


def test_grouped_heads_take_the_circuits_of_all_that_share_them():
    o, v = heads(24).mT, heads(25)
    key, queries = heads(26, 1), heads(27, 3)
    side_by_side = torch.cat([*queries], -1)[None]
    records, _ = linked(o, v, key, side_by_side)
    stacked = torch.cat([q.mT @ key[0] for q in queries]).numpy()  # W_QKᵀ of all three
    for one in records:
        w_ov = (o[one.head_from] @ v[one.head_from]).numpy()
        score = np.linalg.norm(stacked @ w_ov) / np.linalg.norm(stacked) / np.linalg.norm(w_ov)
        assert one.composition == pytest.approx(score, rel=1e-12)


def test_without_the_other_factor_there_is_overlap_and_no_composition():
    o, v, q = heads(30).mT, heads(31), heads(32)
    writers, readers = head_ends(bare(o.mT), v), head_ends(bare(q), None)
    records, tested = listed(writers, readers)
    assert tested == len(records) == H * H
    assert all(one.composition is one.composition_z is None for one in records)
    full, _ = linked(o, v, q, heads(33))
    assert sorted(r.overlap_z for r in full) == pytest.approx(sorted(r.overlap_z for r in records))


def gain(sd, seed):
    return (sd * normal(D, seed=seed)).exp()


def twice_tested(o, v, q, k):
    """Records of all links, as they are and with the second look."""
    writers, readers = head_ends(bare(o.mT), v), head_ends(bare(q), k)
    scaled = [ScaledEnds(ends, scale_profile([ends.spaces])) for ends in (writers, readers)]
    links = head_links(NAME, writers, readers)
    for _, i, j in links.furthest(1000):
        again = divided_link(NAME, *scaled, i, j)
        yield links.record(i, j), links.record(i, j, divided=lambda again=again: again)


def test_scales_that_writers_and_readers_have_in_common_are_no_link():
    raw, looked = [], []
    for seed in range(12):
        common = gain(0.5, 500 + seed)
        o, v, q, k = (normal(8, R, D, seed=1000 + 4 * seed + i) for i in range(4))
        for one, two in twice_tested((o * common).mT, v, q * common, k):
            raw.append((one.log10_p, one.composition_log10_p))
            looked.append((two.log10_p, two.composition_log10_p))
            assert two.overlap_z == one.overlap_z
            assert two.composition == one.composition
            assert two.log10_p >= one.log10_p
    raw, looked = (np.mean(np.array(p) < np.log10(0.01), 0) for p in (raw, looked))
    assert np.all(raw > 0.1)
    assert np.all(looked < 0.01 + 4 * np.sqrt(0.01 / (12 * 64)))


def test_a_planted_link_is_found_under_a_gain():
    o, v, q, k = heads(5), heads(6), heads(7), heads(8)
    common = gain(0.5, 9)
    q[2] = normal(R, R, seed=9) @ o[1]
    found = {
        (r.head_from, r.head_to): r for _, r in twice_tested((o * common).mT, v, q * common, k)
    }
    assert found[1, 2].log10_p < -20
    assert found[1, 2].composition_log10_p < -4
    assert sum(r.log10_p < -3 for r in found.values()) == 1


def test_coordinates_that_the_other_side_does_not_use_are_left_out():
    o, v, q, k = heads(5), heads(6), heads(7), heads(8)
    o[:, :, :10] = 0
    q[:, :, 6:12] = 0
    writers, readers = head_ends(bare(o), v), head_ends(bare(q), k)
    scaled = [ScaledEnds(ends, scale_profile([ends.spaces])) for ends in (writers, readers)]
    again = divided_link(NAME, *scaled, 1, 2)
    assert again.writers.spaces.d == again.readers.spaces.d == D - 12
    assert again.writers.spaces.ranks.tolist() == [R]
    assert float(torch.linalg.matrix_norm(again.writers.circuits[0])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("z", "again", "log10_p"),
    [
        (4.0, Significance(3.0, 1e-3, -3.0), -3.0),
        (-4.0, Significance(-3.0, 1e-3, -3.0), -3.0),
        (4.0, Significance(-3.0, 1e-3, -3.0), 0.0),  # on the other side of chance
        (-4.0, Significance(3.0, 1e-3, -3.0), 0.0),
        (None, Significance(3.0, 1e-3, -3.0), -3.0),  # of one side only
        (4.0, None, 0.0),
        (4.0, Significance(None, None, None), 0.0),
    ],
)
def test_a_second_look_bears_out_what_lies_on_the_same_side_of_chance(z, again, log10_p):
    assert second_log10_p(Significance(z, 1e-5, -5.0), again) == log10_p


def test_ends_without_scales_of_their_own_have_no_second_look():
    writers, readers = head_ends(bare(heads(5)), heads(6)), head_ends(bare(heads(7)), heads(8))
    assert divided_link(NAME, ScaledEnds(writers, None), ScaledEnds(readers, None), 0, 0) is None


@pytest.mark.parametrize("power", [-80, 80])
def test_factors_of_a_circuit_may_have_any_size_in_single_precision(power):
    """Their product, and the squares of its entries, would leave the range."""
    o, v, q, k = (heads(seed).float() for seed in (1, 2, 3, 4))
    usual = head_links(NAME, head_ends(bare(o), v), head_ends(bare(q), k))
    o, v, q, k = (factor * 2.0**power for factor in (o, v, q, k))
    found = head_links(NAME, head_ends(bare(o), v), head_ends(bare(q), k))
    np.testing.assert_allclose(found.composition, usual.composition, rtol=1e-6)
    np.testing.assert_allclose(found.overlap, usual.overlap, rtol=1e-6)
