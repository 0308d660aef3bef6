"""Invariants: counted a third way, at planted pairs, and findings that a wrong number overturns."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from math import comb

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import null_space

from flagscope.geometry import (
    RelativePosition,
    Stability,
    git_stability,
    orthonormal_basis,
    relative_position,
    strata,
)
from flagscope.lab import Measured, Options
from flagscope.lab.experiments.invariant_ring import findings as invariant_findings
from flagscope.lab.experiments.invariant_ring import invariants
from flagscope.lab.experiments.invariant_ring.characters import (
    determinant_multiplicity,
    determinantal_hilbert_function,
    kostka,
    partitions,
    product_weight_multiplicity,
    schur_dimension,
)
from flagscope.lab.experiments.invariant_ring.exact import (
    exact_matrix,
    intersection_basis,
    kernel_meeting,
    map_stabiliser,
    meeting,
    pair_stabiliser,
    planted_maps,
    planted_pair,
    plucker_point,
    random_invertible,
    random_unimodular,
    slope_excess,
)
from flagscope.lab.experiments.invariant_ring.experiment import EXPERIMENT
from flagscope.lab.experiments.invariant_ring.invariants import (
    Sections,
    invariant_dimension,
    map_invariants,
)
from flagscope.lab.experiments.invariant_ring.polynomials import annihilated, derived, multiplied

from .test_published import LAB, parts

VERDICTS = ["confirmed", "refuted", "refuted", "confirmed", "confirmed", "refuted"]
VERDICTS += ["confirmed", "confirmed"]


@pytest.fixture(scope="module")
def measured():
    cells = EXPERIMENT.cells(Options(seeds=1, quick=True))
    return [Measured(c, EXPERIMENT.measure(c, lambda _: None), 0.0) for c in cells]


def verdicts(measured):
    return [finding.verdict for finding in EXPERIMENT.conclude(measured)]


def tampered(measured, part, change, only=lambda row: True):
    """The same with the first row of a part that qualifies changed."""
    changed, done = [], False
    for m in measured:
        rows = [dict(row) for row in m.values["rows"]]
        for row in rows:
            if not done and m.cell.settings["part"] == part and only(row):
                row |= change
                done = True
        changed.append(replace(m, values={"rows": rows}))
    assert done
    return changed


def tableaux(shape, weight):
    """Semistandard tableaux, by trying every filling."""
    boxes = [(i, j) for i, length in enumerate(shape) for j in range(length)]
    count = 0
    for filling in product(range(len(weight)), repeat=len(boxes)):
        entry = dict(zip(boxes, filling, strict=True))
        rises = all(entry[i, j] <= entry.get((i, j + 1), len(weight)) for i, j in boxes)
        grows = all(entry[i, j] < entry.get((i + 1, j), len(weight)) for i, j in boxes)
        right = all(filling.count(number) == weight[number] for number in range(len(weight)))
        count += rises and grows and right
    return count


def test_kostka_numbers_count_tableaux():
    for shape in [(2, 1), (2, 2), (3, 1), (2, 1, 1)]:
        for weight in product(range(4), repeat=3):
            assert kostka(shape, weight) == (
                tableaux(shape, weight) if sum(weight) == sum(shape) else 0
            )


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_weights_add_up_to_the_dimension(d):
    for shape in partitions(4, 4):
        weights = product(range(5), repeat=d)
        assert schur_dimension(shape, d) == sum(kostka(shape, w) for w in weights if sum(w) == 4)


def test_the_weights_of_a_product_are_symmetric():
    first, second = (2, 2), (1, 1)
    found = {product_weight_multiplicity(first, second, w) for w in [(3, 2, 1), (1, 2, 3)]}
    assert len(found) == 1


def compound(g, r):
    """Action of g on the Plücker coordinates of r-dimensional spaces."""
    chosen = list(combinations(range(len(g)), r))
    return np.array([[np.linalg.det(g[np.ix_(rows, cols)]) for cols in chosen] for rows in chosen])


@pytest.mark.parametrize("d", [2, 3, 4])
def test_vectors_that_two_random_matrices_fix(d):
    """O(1, 1) once more, in floating point: two random g generate a dense subgroup of SL(d)."""
    rng = np.random.default_rng(d)
    drawn = [g / abs(np.linalg.det(g)) ** (1 / d) for g in rng.standard_normal((2, d, d))]
    drawn = [g if np.linalg.det(g) > 0 else g[[1, 0, *range(2, d)]] for g in drawn]
    for r1, r2 in product(range(1, d), repeat=2):
        acting = [np.kron(compound(g, r1), compound(g, r2)) for g in drawn]
        fixed = null_space(np.concatenate([a - np.eye(len(a)) for a in acting]), rcond=1e-9)
        assert fixed.shape[1] == determinant_multiplicity((1,) * r1, (1,) * r2, d)
        assert fixed.shape[1] == invariant_dimension(Sections(d, r1, 1), Sections(d, r2, 1))
        assert fixed.shape[1] == (r1 + r2 == d)


def test_the_invariant_is_the_power_of_the_determinant():
    """In O(2, 2) on P¹ × P¹: (v1 u2 - v2 u1)²; variables v1, v2, u1, u2."""
    monomials = [(2, 0, 0, 2), (1, 1, 1, 1), (0, 2, 2, 0)]
    raising = [(1, 0, 1), (1, 2, 3)]
    (found,) = annihilated(monomials, [raising])
    determinant = {(1, 0, 0, 1): 1, (0, 1, 1, 0): -1}
    assert found == multiplied(determinant, determinant)
    assert derived(found, raising) == {}


def test_sections_are_as_many_as_weyl_says():
    sections = Sections(4, 2, 3)
    assert sum(len(sections.basis(w)) for w in sections.weights) == schur_dimension((3, 3), 4)
    for weight in sections.weights:
        assert len(sections.basis(weight)) == kostka((3, 3), weight)


@pytest.mark.parametrize("roots", [None, [], [0]])
def test_more_roots_leave_fewer_invariants(roots):
    pair = Sections(3, 1, 1), Sections(3, 2, 1)
    assert (
        invariant_dimension(*pair, roots=roots)
        == {None: 1, (): 3, (0,): 2}[None if roots is None else tuple(roots)]
    )


@pytest.mark.parametrize(("p", "q", "m"), [(2, 2, 2), (3, 2, 3), (3, 3, 3)])
def test_functions_on_matrices_of_bounded_rank(p, q, m):
    one = comb(p + m - 1, m) * comb(q + m - 1, m)
    every = comb(p * q + m - 1, m)
    assert map_invariants(m, d=1, inputs=p, outputs=q) == (one, one)
    for d in (min(p, q), 3):
        assert map_invariants(m, d=d, inputs=p, outputs=q) == (every, every)
    assert determinantal_hilbert_function(m, rows=q, columns=p, rank=1) == one


def test_the_first_relation_is_the_determinant():
    """3 × 3 matrices of rank ≤ 2 have one cubic relation."""
    assert map_invariants(3, d=2, inputs=3, outputs=3) == (165 - 1, 165 - 1)


def test_the_lie_algebra_annihilates_the_entries_of_the_product():
    """And only with the sign of W2 ↦ -W2 E; the dimensions alone do not depend on it."""
    columns, rows, d = (1, 1), (1, 1, 0), 3
    _, raising = invariants._middle_zero(2, d, columns, rows)
    for polynomial in invariants._products(d, columns, rows):
        for derivation in raising:
            assert derived(polynomial, derivation) == {}
            assert derived(polynomial, [(abs(c), a, b) for c, a, b in derivation]) != {}


def moved_pair(position, seed):
    g = random_invertible(position.d, torch.Generator().manual_seed(seed))
    return [g * x for x in planted_pair(position)]


def floats(matrix):
    return torch.tensor([[float(x) for x in row] for row in matrix.to_list()], dtype=torch.float64)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_exact_positions_are_those_of_the_library(d):
    for r1, r2 in product(range(1, d), repeat=2):
        for position in strata(d, r1, r2):
            v, u = moved_pair(position, seed=d)
            bases = [orthonormal_basis(floats(x), rank=x.shape[1]) for x in (v, u)]
            assert relative_position(*bases, tolerance=1e-9).k == meeting(v, u) == position.k
            assert intersection_basis(v, u).shape == (d, position.k)
            assert pair_stabiliser(v, u) == d * d - 1 - position.orbit_dimension > 0
            for a, b in [(1, 1), (1, 3)]:
                verdict = git_stability(position, weight_write=a, weight_read=b)
                unstable = slope_excess(v, u, write=a, read=b)[0] > 0
                assert unstable == (verdict.stability == Stability.UNSTABLE)


def test_plucker_coordinates_are_those_of_a_space():
    v, _ = moved_pair(RelativePosition(5, 2, 2, 0), seed=1)
    again = v * exact_matrix([[2, 1], [5, 3]], 2)
    assert plucker_point(v) == plucker_point(again)
    assert plucker_point(random_unimodular(5, torch.Generator().manual_seed(3)) * v) != (
        plucker_point(v)
    )


def test_planted_maps_have_their_ranks():
    for r1, r2, s in [(2, 3, 1), (4, 4, 4), (0, 2, 0), (3, 1, 1)]:
        w1, w2 = planted_maps(4, r1, r2, s)
        assert (w1.rank(), w2.rank(), (w2 * w1).rank()) == (r1, r2, s)
        assert kernel_meeting(w1, w2) == r1 - s
        assert map_stabiliser(w1, w2) == (4 - r1) * (4 - r2)


def test_every_part_is_settled(measured):
    assert verdicts(measured) == VERDICTS
    findings = EXPERIMENT.conclude(measured)
    assert set(EXPERIMENT.draw(measured, findings)) == set(dict(EXPERIMENT.figures))
    assert set(EXPERIMENT.table(measured).part) == {"sections", "fundamental", "points", "maps"}


@pytest.mark.parametrize(
    ("part", "change", "finding"),
    [
        ("sections", {"characters": 2}, 0),
        ("sections", {"kernel": 2}, 0),
        ("fundamental", {"kernel": 99}, 3),
        ("fundamental", {"generated": 5}, 3),
        ("maps", {"kernel_meeting_after": 7}, 4),
        ("maps", {"stable": True}, 6),
        ("maps", {"stabiliser": 5}, 6),
        ("sections", {"torus": 7}, 7),
    ],
)
def test_one_counterexample_refutes(measured, part, change, finding):
    assert verdicts(tampered(measured, part, change))[finding] == "refuted"


def test_products_that_fix_the_kernel_intersection_would_refute(measured):
    """Rows in which each k' has a product of its own."""
    changed = []
    for m in measured:
        rows = [row | {"entries": [row.get("kernel_meeting")]} for row in m.values["rows"]]
        changed.append(replace(m, values={"rows": rows}))
    assert verdicts(changed)[4] == "refuted"


def test_a_stable_pair_would_confirm_the_quotient(measured):
    assert verdicts(tampered(measured, "points", {"stable": True}))[5] == "confirmed"
    unproven = tampered(measured, "points", {"agrees_with_git_stability": False})
    assert verdicts(unproven)[5] == "open"


def test_invariants_that_separate_strata_would_confirm():
    """Rows as they would be if an invariant vanished at k = 1 alone, or at k = 0 alone."""
    common = {"d": 4, "r1": 2, "r2": 2, "value_kept": True}
    section = {"d": 4, "r1": 1, "r2": 2, "m": 1, "n": 1, "kernel": 1}
    points = [common | {"k": k, "zero": k == 1} for k in range(2)]
    assert invariant_findings._separation([section], points).verdict == "confirmed"
    points = [common | {"k": k, "zero": k == 0} for k in range(3)]
    finding = invariant_findings._separation([section], points)
    assert [e.value for e in finding.estimates] == [1, 0, 1]
    assert finding.verdict == "refuted"


def test_the_page_says_what_the_table_says():
    table = pd.read_csv(LAB / "invariant-ring/table.csv")
    sections = table[table.part == "sections"]
    assert len(sections) == sum((d - 1) ** 2 * 16 for d in (2, 3, 4))
    split = sections.r1 + sections.r2 == sections.d
    expected = (split & (sections.m == sections.n)) | (sections.m + sections.n == 0)
    assert (sections.characters == expected).all()
    assert (sections.kernel == expected).all()
    points = table[table.part == "points"]
    assert (points.stabiliser > 0).all()
    split = points[points.r1 + points.r2 == points.d]
    assert ((split.zero.astype(str) == "True") == (split.k > 0)).all()
    assert len(parts("invariant-ring")) == len(VERDICTS)
