import mpmath
import pytest
import scipy.linalg
import torch

from flagscope.errors import InputError
from flagscope.geometry import balancing_transform, balancing_transform_of_maps
from geometry.planted import haar_bases, map_with_values, seeded


def random_pair(d, *, condition, generator, batch=()):
    values = torch.logspace(0, -condition, d, dtype=torch.float64)
    maps = [
        haar_bases(*batch, d, d, generator=generator)
        * values
        @ haar_bases(*batch, 3 * d, d, generator=generator).mT
        for _ in range(2)
    ]
    return maps[0], maps[1].mT


def grams(write, read):
    return write @ write.mT, read.mT @ read


def residual(write, read, result):
    a, b = grams(result.transform @ write, read @ result.inverse)
    return (torch.linalg.matrix_norm(a - b) / torch.linalg.matrix_norm(a)).max().item()


@pytest.mark.parametrize("d", [1, 2, 16])
@pytest.mark.parametrize("condition", [0, 1, 3])
def test_balanced_grams_agree_and_the_product_stays(d, condition):
    write, read = random_pair(d, condition=condition, generator=seeded(d), batch=(5,))
    for result in (
        balancing_transform(*grams(write, read)),
        balancing_transform_of_maps(write, read),
    ):
        assert result.statuses() == ["ok"] * 5
        assert residual(write, read, result) < 1e-12
        product = (read @ result.inverse) @ (result.transform @ write)
        torch.testing.assert_close(product, read @ write, atol=1e-13, rtol=0)
        spectrum = torch.linalg.svdvals(read @ write)[..., :d]
        torch.testing.assert_close(result.spectrum, spectrum, atol=1e-13, rtol=0)
        assert torch.equal(result.transform, result.transform.mT)
        assert torch.linalg.eigvalsh(result.transform).min() > 0
        expected = torch.linalg.cond(result.transform)
        torch.testing.assert_close(result.condition, expected, rtol=1e-9, atol=0)


def test_maps_are_balanced_to_roundoff_however_ill_conditioned():
    write, read = random_pair(16, condition=5, generator=seeded(1))
    assert residual(write, read, balancing_transform_of_maps(write, read)) < 1e-12


def test_transform_is_the_closed_form():
    # g = S^{1/2}, S = A^{-1/2} (A^{1/2} B A^{1/2})^{1/2} A^{-1/2}, evaluated to 40 digits.
    write, read = random_pair(3, condition=2, generator=seeded(2))
    a, b = grams(write, read)

    def root(matrix):
        values, vectors = mpmath.eigsy(matrix)
        return vectors * mpmath.diag([mpmath.sqrt(v) for v in values]) * vectors.T

    with mpmath.workdps(40):
        a_root = root(mpmath.matrix(a.tolist()))
        inner = a_root * mpmath.matrix(b.tolist()) * a_root
        s = mpmath.inverse(a_root) * root((inner + inner.T) / 2) * mpmath.inverse(a_root)
        g = root((s + s.T) / 2)
        expected = torch.tensor(
            [[float(g[i, j]) for j in range(3)] for i in range(3)], dtype=torch.float64
        )
    torch.testing.assert_close(
        balancing_transform(a, b).transform, expected, rtol=1e-12, atol=1e-12
    )


def test_s_solves_the_riccati_equation_by_scipy():
    # S A S = B is the Riccati equation 0·S + S·0 - S A S + B = 0.
    write, read = random_pair(4, condition=1, generator=seeded(3))
    a, b = grams(write, read)
    factor = scipy.linalg.cholesky(a.numpy(), lower=True)
    s = scipy.linalg.solve_continuous_are(0 * factor, factor, b.numpy(), torch.eye(4).numpy())
    g = balancing_transform(a, b).transform
    torch.testing.assert_close(g @ g, torch.from_numpy(s), rtol=1e-10, atol=1e-10)


def test_balanced_form_does_not_depend_on_the_gauge():
    generator = seeded(4)
    write, read = random_pair(6, condition=1, generator=generator)
    g = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    moved = balancing_transform_of_maps(g @ write, read @ torch.linalg.inv(g))
    result = balancing_transform_of_maps(write, read)
    torch.testing.assert_close(moved.spectrum, result.spectrum, rtol=1e-10, atol=1e-12)
    one = torch.linalg.svdvals(result.transform @ write)
    other = torch.linalg.svdvals(moved.transform @ g @ write)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_balanced_pair_is_left_alone():
    write, _ = random_pair(5, condition=1, generator=seeded(5))
    result = balancing_transform_of_maps(write, write.mT)
    torch.testing.assert_close(result.transform, torch.eye(5).double(), rtol=0, atol=1e-13)


def test_rank_deficient_members_are_marked_and_kept():
    generator = seeded(6)
    write, read = random_pair(4, condition=0, generator=generator, batch=(5,))
    write, read = write.clone(), read.clone()
    write[1] = map_with_values([1.0, 1.0, 1.0], 4, 12, generator=generator)
    read[2] = 0
    read[3] = map_with_values([1.0, 1.0, 1.0], 12, 4, generator=generator)
    a, b = grams(write, read)
    for result in (balancing_transform(a, b), balancing_transform_of_maps(write, read)):
        assert result.balanced.tolist() == [True, False, False, False, True]
        assert result.statuses() == ["ok", *["rank deficient"] * 3, "ok"]
        assert torch.equal(result.transform[1:4], torch.eye(4).double().expand(3, 4, 4))
        assert torch.equal(result.inverse[1:4], torch.eye(4).double().expand(3, 4, 4))
        assert torch.isfinite(result.spectrum).all()
        assert residual(write[::4], read[::4], balancing_transform(a[::4], b[::4])) < 1e-13
    narrow = balancing_transform_of_maps(write[0, :, :3], read[0])
    assert narrow.statuses() == ["rank deficient"]


@pytest.mark.parametrize("deficient", ["write", "read"])
def test_rounding_never_passes_for_rank(deficient):
    generator = seeded(10)
    full = torch.randn(100, 2, 300, dtype=torch.float64, generator=generator)
    column = torch.randn(100, 2, 1, dtype=torch.float64, generator=generator)
    single = column @ torch.randn(100, 1, 300, dtype=torch.float64, generator=generator)
    write, read = (single, full.mT) if deficient == "write" else (full, single.mT)
    assert not balancing_transform(*grams(write, read)).balanced.any()
    assert not balancing_transform_of_maps(write, read).balanced.any()


def test_a_product_that_loses_rank_by_rounding_is_marked():
    # Each factor has condition 1e10, their product 1e20.
    frame = haar_bases(3, 3, generator=seeded(11))
    write = frame * torch.tensor([1.0, 0.5, 1e-10], dtype=torch.float64)
    result = balancing_transform_of_maps(write, write.mT)
    assert result.statuses() == ["rank deficient"]


@pytest.mark.parametrize("scale", [1e-120, 1e120])
def test_extreme_scales_stay_in_range(scale):
    write, read = random_pair(3, condition=1, generator=seeded(7))
    result = balancing_transform_of_maps(scale * write, read / scale)
    assert residual(scale * write, read / scale, result) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision(dtype):
    write, read = (w.to(dtype) for w in random_pair(8, condition=1, generator=seeded(8)))
    result = balancing_transform_of_maps(write, read)
    assert result.transform.dtype == torch.float32
    assert residual(write.float(), read.float(), result) < 2e-5


def test_empty_space():
    result = balancing_transform(torch.zeros(0, 0), torch.zeros(0, 0))
    assert result.transform.shape == (0, 0)


def test_bad_arguments_are_refused():
    eye = torch.eye(3)
    with pytest.raises(InputError, match="square"):
        balancing_transform(eye[:2], eye)
    with pytest.raises(InputError, match="symmetric"):
        balancing_transform(eye, torch.ones(3, 3).triu())
    with pytest.raises(InputError, match="different sizes"):
        balancing_transform(eye, torch.eye(4))
    with pytest.raises(InputError, match="negative eigenvalue"):
        balancing_transform(eye, -eye)
    with pytest.raises(InputError, match="share a space"):
        balancing_transform_of_maps(eye, torch.eye(4))
