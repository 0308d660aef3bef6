import pytest
import scipy.linalg
import torch

from flagscope.errors import InputError
from flagscope.geometry import orthogonal_complement, orthonormal_basis, singular_space
from geometry.planted import haar_bases, map_with_values, seeded


def assert_orthonormal(basis, tolerance=1e-13):
    identity = torch.eye(basis.shape[-1], dtype=basis.dtype).expand_as(basis.mT @ basis)
    torch.testing.assert_close(basis.mT @ basis, identity, atol=tolerance, rtol=0)


@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_basis_spans_the_dominant_column_space(rank):
    matrix = torch.randn(4, 9, 5, dtype=torch.float64, generator=seeded())
    basis = orthonormal_basis(matrix, rank=rank)
    assert basis.shape == (4, 9, rank)
    assert_orthonormal(basis)
    for one, found in zip(matrix, basis, strict=True):
        u = scipy.linalg.svd(one.numpy())[0][:, :rank]
        torch.testing.assert_close(found @ found.mT, torch.from_numpy(u @ u.T), atol=1e-12, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_singular_space_finds_planted_vectors(side):
    generator = seeded(1)
    left, right = haar_bases(8, 3, generator=generator), haar_bases(6, 3, generator=generator)
    matrix = left * torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64) @ right.mT
    expected = left if side == "left" else right
    found = singular_space(matrix, rank=2, side=side)
    overlap = (found.mT @ expected[:, :2]).abs()
    torch.testing.assert_close(overlap, torch.eye(2, dtype=torch.float64), atol=1e-14, rtol=0)


def test_wide_matrix_of_full_row_rank_spans_everything():
    matrix = torch.randn(4, 9, dtype=torch.float64, generator=seeded())
    basis = orthonormal_basis(matrix, rank=4)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("dtype", "working"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_precision_follows_the_input(dtype, working):
    matrix = torch.randn(7, 3, generator=seeded()).to(dtype)
    for basis in (orthonormal_basis(matrix, rank=3), singular_space(matrix, rank=2)):
        assert basis.dtype == working
        assert_orthonormal(basis, 1e-6)


def test_directions_of_rounding_error_are_refused():
    matrix = map_with_values([2.0, 1.0], 8, 5, generator=seeded(2))
    assert orthonormal_basis(matrix, rank=2).shape == (8, 2)
    for rank in (3, 5):
        with pytest.raises(InputError, match="numerical rank 2"):
            orthonormal_basis(matrix, rank=rank)
    with pytest.raises(InputError, match="numerical rank 0"):
        singular_space(torch.zeros(3, 3), rank=1)
    assert orthonormal_basis(torch.zeros(3, 0), rank=0).shape == (3, 0)


def test_complement_completes_the_space():
    basis = haar_bases(3, 7, 4, generator=seeded())
    rest = orthogonal_complement(basis)
    assert_orthonormal(torch.cat([basis, rest], dim=-1))
    assert orthogonal_complement(basis[..., :0]).shape == (3, 7, 7)
    assert orthogonal_complement(torch.eye(3)).shape == (3, 0)


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="impossible"):
        orthonormal_basis(torch.eye(3)[:, :2], rank=3)
    with pytest.raises(InputError, match="impossible"):
        singular_space(torch.eye(3), rank=-1)
    with pytest.raises(InputError, match="side"):
        singular_space(torch.eye(3), rank=1, side="top")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="not orthonormal"):
        orthogonal_complement(torch.ones(3, 2))
