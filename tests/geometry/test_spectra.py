from functools import partial

import numpy as np
import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import pair_spectra, product_singular_values, spectra_cost
from flagscope.geometry.spectra import _from_large_grams, _from_small_grams
from geometry.planted import haar, normal, with_values

PATHS = (_from_large_grams, _from_small_grams)
SHAPES = [
    (1, 1, 1), (1, 5, 3), (5, 1, 1), (2, 2, 2), (6, 9, 20), (6, 20, 3), (20, 3, 4), (20, 7, 30),
    (20, 20, 20), (9, 8, 10), (40, 25, 25),
]  # fmt: skip


def explicit(w1, w2):
    a, b = w1 @ w1.T, w2.T @ w2
    return a, b, np.linalg.norm(a @ b - b @ a) ** 2


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("d", "m1", "m2"), SHAPES)
def test_both_paths_agree_with_direct_decompositions(path, d, m1, m2):
    w1, w2 = normal(3, d, m1, seed=1), normal(3, m2, d, seed=2)
    s = path(w1, w2)
    p, q = min(d, m1), min(d, m2)
    assert s.alpha.shape == (3, p)
    assert s.cosines.shape == s.cross.shape == (3, p, q)
    for i, (one, two) in enumerate(zip(w1.numpy(), w2.numpy(), strict=True)):
        u, sigma1, _ = np.linalg.svd(one, full_matrices=False)
        _, sigma2, v = np.linalg.svd(two, full_matrices=False)
        np.testing.assert_allclose(s.alpha[i], sigma1**2, rtol=1e-11, atol=1e-13 * sigma1[0] ** 2)
        np.testing.assert_allclose(s.sigma_read[i], sigma2, rtol=1e-11)
        # Singular vectors have a sign each.
        np.testing.assert_allclose(s.cosines[i].abs(), np.abs(u.T @ v.T), atol=1e-9)
        np.testing.assert_allclose(
            s.cross[i].abs(), np.abs(sigma1[:, None] * (u.T @ v.T) * sigma2), atol=1e-9
        )
        product = np.linalg.svd(two @ one, compute_uv=False)[: min(p, q)]
        found = product_singular_values(s, lambda: (w1, w2), size=max(*w1.shape[1:], w2.shape[1]))[
            i
        ]
        np.testing.assert_allclose(found, product, atol=1e-12 * sigma1[0] * sigma2[0])
        a, b, commutator = explicit(one, two)
        scale = (np.linalg.norm(a) * np.linalg.norm(b)) ** 2
        np.testing.assert_allclose(
            float(s.commutator[i]), commutator, rtol=1e-9, atol=1e-28 * scale
        )


def test_the_cheaper_path_is_taken(monkeypatch):
    taken = []

    def noted(path, *given):
        taken.append(path.__name__)
        return path(*given)

    for path in PATHS:
        name = f"flagscope.geometry.spectra.{path.__name__}"
        monkeypatch.setattr(name, partial(noted, path))
    pair_spectra(normal(1, 8, 100, seed=0), normal(1, 100, 8, seed=0))
    pair_spectra(normal(1, 100, 8, seed=0), normal(1, 8, 100, seed=0))
    assert taken == ["_from_large_grams", "_from_small_grams"]
    large, small = spectra_cost(100, 8, 8)
    assert small < large


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("angle", [0.3, 1e-2, 1e-4, 1e-6, 1e-8])
def test_nearly_commuting_pairs_have_the_commutator_of_one_rotated_plane(path, angle):
    # A and B share all eigenvectors but two, which B has turned by the angle in their plane:
    # ‖[A,B]‖² = 2 ((a1 - a2)(b1 - b2) sin cos)². Differences of traces lose it below 1e-8.
    d = 30
    q = haar(1, d, 6, seed=5)[0]
    turned = q.clone()
    turned[:, 0] = q[:, 0] * np.cos(angle) + q[:, 1] * np.sin(angle)
    turned[:, 1] = q[:, 1] * np.cos(angle) - q[:, 0] * np.sin(angle)
    a = torch.tensor([5.0, 2.0, 4.0, 3.0, 1.5, 1.0], dtype=torch.float64)
    b = torch.tensor([3.0, 1.0, 0.5, 2.0, 4.0, 1.0], dtype=torch.float64)
    w1 = (q * a.sqrt()) @ haar(1, 6, 6, seed=6)[0]
    w2 = haar(1, 7, 6, seed=7)[0] @ (turned * b.sqrt()).mT
    exact = 2 * ((5.0 - 2.0) * (3.0 - 1.0) * np.sin(angle) * np.cos(angle)) ** 2
    found = float(path(w1[None], w2[None]).commutator)
    # Vectors err by 1e-15, so a commutator of size θ is known to 1e-15/θ.
    assert found == pytest.approx(exact, rel=1e-8 + 1e-14 / angle)


@pytest.mark.parametrize("path", PATHS)
def test_commuting_pairs_commute_to_round_off(path):
    q = haar(1, 60, 12, seed=3)[0]
    w1 = (q[:, :7] * torch.arange(1.0, 8.0))[None]
    overlapping = (q[:, 4:] * torch.arange(1.0, 9.0)).mT[None]
    orthogonal = (q[:, 7:] * torch.arange(1.0, 6.0)).mT[None]
    for w2 in (overlapping, orthogonal, w1.mT):
        s = path(w1, w2)
        scale = float(s.alpha.square().sum() * s.beta.square().sum())
        assert 0 <= float(s.commutator) < 1e-28 * scale


@pytest.mark.parametrize(("condition", "error"), [(1e2, 1e-11), (1e4, 1e-7), (1e6, 1e-3)])
def test_cosines_lose_the_square_of_the_condition(condition, error):
    sigma = np.geomspace(1, 1 / condition, 12)
    w1, w2 = with_values(50, 20, sigma, seed=1), with_values(20, 50, sigma, seed=3)
    u = np.linalg.svd(w1.numpy())[0][:, :12]
    v = np.linalg.svd(w2.numpy())[2][:12].T
    exact = np.abs(u.T @ v)
    s = pair_spectra(w1[None], w2[None])
    assert np.abs(s.cosines[0, :12, :12].abs().numpy() - exact).max() < error


@pytest.mark.parametrize("seed", range(4))
def test_rows_and_columns_of_the_cosines_are_no_longer_than_one(seed):
    # Round-off in directions of singular values near the floor of the Gram matrix, where the other
    # side knows all of the space.
    weak = with_values(50, 20, np.geomspace(1, 1.5e-7, 12), seed=seed)
    whole = normal(50, 50, seed=seed + 9)
    for w1, w2 in ((weak, whole), (whole, weak.mT), (weak, weak.mT)):
        k = _from_small_grams(w1[None], w2[None].contiguous()).cosines.square()
        assert float(k.sum(-1).max()) <= 1 + 1e-12
        assert float(k.sum(-2).max()) <= 1 + 1e-12


@pytest.mark.parametrize(("d", "m1", "m2"), [(8, 20, 30), (30, 9, 8), (30, 40, 8), (12, 12, 12)])
def test_product_keeps_singular_values_that_are_zero(d, m1, m2):
    # √ of a Gram's round-off would give 1e-8.
    w1, w2 = normal(2, d, m1, seed=1), normal(2, m2, 5, seed=2) @ normal(2, 5, d, seed=3)
    w1[1] = with_values(d, m1, [3.0, 1.0, 0.5], seed=9)
    s = pair_spectra(w1, w2)
    sigma = product_singular_values(s, lambda: (w1, w2), size=max(*w1.shape[1:], w2.shape[1]))
    sigma = sigma / (s.sigma_write[:, :1] * s.sigma_read[:, :1])
    assert (sigma > 1e-13).sum(-1).tolist() == [5, 3]
    assert (sigma > 1e-3).sum(-1).tolist() == [5, 3]


@pytest.mark.parametrize("d", [8, 40])
def test_product_of_ill_conditioned_maps(d):
    # W2 is blind to three of the five directions that W1 writes, weak ones among them. Cosines from
    # Gram matrices alone leave more than round-off there.
    q = haar(1, d, d, seed=1)[0]
    weak = torch.logspace(0, -5, 5, dtype=torch.float64)
    mixed = q[:, :5] @ haar(1, 5, 5, seed=2)[0]
    w1 = (mixed * weak) @ haar(1, 20, 5, seed=3)[0].mT
    w2 = haar(1, 30, 5, seed=4)[0] @ (weak[:, None] * haar(1, 5, 5, seed=5)[0] @ q[:, 3:8].mT)
    s = pair_spectra(w1[None], w2[None])
    sigma = product_singular_values(
        s, lambda: (w1[None], w2[None]), size=max(*w1.shape, *w2.shape)
    )[0]
    exact = np.linalg.svd((w2 @ w1).numpy(), compute_uv=False)
    np.testing.assert_allclose(sigma, exact[: len(sigma)], atol=1e-14)
    assert int((sigma > 1e-14).sum()) == 2


def test_a_batch_is_its_members():
    w1, w2 = normal(4, 20, 5, seed=1), normal(4, 6, 20, seed=2)
    w2[2] = torch.linalg.qr(w1[2]).Q.mT[[0, 1, 2, 3, 4, 4]]
    whole = pair_spectra(w1, w2)
    for i in range(4):
        one = pair_spectra(w1[i : i + 1], w2[i : i + 1])
        torch.testing.assert_close(one.alpha, whole.alpha[i : i + 1])
        torch.testing.assert_close(one.commutator, whole.commutator[i : i + 1])


def test_float32_keeps_its_type_and_its_digits():
    w1, w2 = normal(1, 40, 12, seed=1), normal(1, 9, 40, seed=2)
    double, single = pair_spectra(w1, w2), pair_spectra(w1.float(), w2.float())
    assert single.cosines.dtype == torch.float32
    torch.testing.assert_close(
        single.cosines.abs().double(), double.cosines.abs(), atol=2e-4, rtol=0
    )
    torch.testing.assert_close(single.commutator.double(), double.commutator, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("w1", "w2"),
    [((2, 3, 4), (2, 4, 4)), ((1, 3, 4), (2, 4, 3)), ((3, 4), (4, 3)), ((1, 3, 4), (3, 4))],
)
def test_maps_that_share_no_space_are_refused(w1, w2):
    with pytest.raises(InputError, match="share a space") as error:
        pair_spectra(torch.zeros(w1), torch.zeros(w2))
    assert error.value.hint
