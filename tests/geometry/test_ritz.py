import torch

from flagscope.geometry.ritz import ritz_space
from geometry.planted import seeded


def spiked(generator, sizes=(300, 420), spikes=(180.0, 140.0, 100.0)):
    w = torch.randn(*sizes, generator=generator)
    for value in spikes:
        u, v = (torch.nn.functional.normalize(torch.randn(n, generator=generator), dim=0)
                for n in sizes)  # fmt: skip
        w += value * torch.outer(u, v)
    return w


def test_leading_triplets_are_those_of_a_decomposition():
    for turned in (False, True):
        w = spiked(seeded(1))
        w = w.mT if turned else w
        space = ritz_space(w, generator=seeded(2))
        u, s, vt = torch.linalg.svd(w.double(), full_matrices=False)
        assert space.found == 3
        torch.testing.assert_close(space.sigma[:3], s[:3], rtol=1e-5, atol=0)
        for mine, theirs in ((space.left, u), (space.right, vt.mT)):
            cosines = (mine[:, :3] * theirs[:, :3]).sum(0).abs()
            assert float(cosines.min()) > 1 - 1e-6
        assert s[3] * 0.97 < space.following <= s[3] * (1 + 1e-6)
        # The bounds on the turns hold.
        for k in range(1, 4):
            lost = space.left[:, :k] - u[:, :k] @ (u[:, :k].mT @ space.left[:, :k])
            assert float(torch.linalg.matrix_norm(lost, ord=2)) <= float(space.turns[k - 1]) + 1e-5


def test_nothing_is_found_where_nothing_stands_out():
    w = torch.randn(400, 500, generator=seeded(3))
    space = ritz_space(w, generator=seeded(4))
    assert space.found == 0
    assert float(space.sigma[0]) <= float(torch.linalg.matrix_norm(w, ord=2)) * (1 + 1e-5)


def test_zero_maps_and_small_ones():
    assert ritz_space(torch.zeros(30, 40), generator=seeded()).found == 0
    w = torch.diag(torch.tensor([5.0, 3.0, 1.0]))
    space = ritz_space(w, generator=seeded())
    torch.testing.assert_close(
        space.sigma, torch.tensor([5.0, 3.0, 1.0], dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert space.found == 3
