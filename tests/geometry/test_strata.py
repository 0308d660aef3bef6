import numpy as np
import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    RelativePosition,
    intersection_dimension,
    orthonormal_basis,
    relative_position,
    strata,
)
from geometry.planted import haar_bases, seeded, spaces_with_angles

ALL_SPACES = [(d, r1, r2) for d in range(8) for r1 in range(d + 1) for r2 in range(d + 1)]


def infinitesimal_rank(v, u):
    """Rank of gl(d) → T_V Gr × T_U Gr, X ↦ ((I - P_V) X V, (I - P_U) X U)."""
    d = len(v)
    rows = []
    for basis in (v, u):
        outside = np.linalg.qr(basis, mode="complete")[0][:, basis.shape[1] :]
        # vec(Oᵀ X B) = (Oᵀ ⊗ Bᵀ) vec X, row by row.
        rows.append(np.kron(outside.T, basis.T))
    action = np.concatenate(rows)
    return np.linalg.matrix_rank(action, tol=1e-8) if action.size else 0 * d


@pytest.mark.parametrize("d", range(8))
def test_orbit_dimension_is_the_rank_of_the_infinitesimal_action(d):
    rng = np.random.default_rng(d)
    g = np.linalg.qr(rng.normal(size=(d, d)))[0] * rng.uniform(0.7, 1.4, size=d)
    for r1 in range(d + 1):
        for r2 in range(d + 1):
            for position in strata(d, r1, r2):
                spaces = [np.linalg.qr(g @ basis.numpy())[0] for basis in position.representative()]
                assert infinitesimal_rank(*spaces) == position.orbit_dimension


def test_known_dimensions():
    assert [p.orbit_dimension for p in strata(8, 3, 4)] == [31, 29, 25, 19]
    flags_in_four = RelativePosition(d=4, r1=1, r2=2, k=1)
    assert flags_in_four.orbit_dimension == 3 + 2


@pytest.mark.parametrize(("d", "r1", "r2"), ALL_SPACES)
def test_strata_form_a_chain_from_open_to_closed(d, r1, r2):
    chain = strata(d, r1, r2)
    assert chain[0].is_open
    assert chain[-1].is_closed
    assert sum(p.is_open for p in chain) == sum(p.is_closed for p in chain) == 1
    assert chain[0].orbit_dimension == r1 * (d - r1) + r2 * (d - r2)
    for i, big in enumerate(chain):
        assert big.codimension == chain[0].orbit_dimension - big.orbit_dimension
        assert big.closure() == chain[i:]
        for j, small in enumerate(chain):
            assert (small <= big) == (small in big.closure()) == (j >= i)
            assert (small < big) == (j > i)
        if i:
            assert big.orbit_dimension < chain[i - 1].orbit_dimension


@pytest.mark.parametrize(("d", "r1", "r2"), [(5, 2, 3), (6, 4, 3), (4, 0, 2), (3, 3, 1)])
def test_representatives_are_recognised_after_any_change_of_basis(d, r1, r2):
    g = torch.randn(d, d, dtype=torch.float64, generator=seeded(d))
    for position in strata(d, r1, r2):
        v, u = position.representative()
        assert relative_position(v, u) == position
        moved = (orthonormal_basis(g @ v, rank=r1), orthonormal_basis(g @ u, rank=r2))
        assert relative_position(*moved, tolerance=1e-12) == position


def test_random_subspaces_are_in_general_position():
    generator = seeded(4)
    for d, r1, r2 in [(6, 2, 3), (6, 4, 5), (5, 5, 5)]:
        v, u = haar_bases(d, r1, generator=generator), haar_bases(d, r2, generator=generator)
        assert relative_position(v, u).is_open


def test_closure_is_reached_only_downwards():
    # A limit of pairs that meet in k dimensions meets in at least k.
    for angle in (0.1, 1e-3, 1e-6):
        v, u = spaces_with_angles([0.0, angle], 6, p=2, q=3, generator=seeded())
        assert intersection_dimension(v, u).dimension == 1
    v, u = spaces_with_angles([0.0, 0.0], 6, p=2, q=3, generator=seeded())
    limit, path = relative_position(v, u), RelativePosition(d=6, r1=2, r2=3, k=1)
    assert limit < path
    assert path >= limit


def test_positions_in_different_spaces_do_not_compare():
    one, other = RelativePosition(5, 2, 2, 1), RelativePosition(6, 2, 2, 1)
    assert not one <= other
    assert not other <= one
    with pytest.raises(TypeError):
        _ = one <= 3


def test_impossible_positions_are_refused():
    with pytest.raises(InputError, match="cannot meet") as caught:
        RelativePosition(d=4, r1=3, r2=3, k=1)
    assert "between 2 and 3" in str(caught.value.hint)
    with pytest.raises(InputError, match="do not fit"):
        strata(3, 4, 1)
    with pytest.raises(InputError, match="resolved"):
        relative_position(torch.eye(3)[:, :1], torch.eye(3)[:, 1:], tolerance=0.5)
