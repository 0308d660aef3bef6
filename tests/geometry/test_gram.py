"""Gram matrices by half of the products."""

import pytest
import torch

from flagscope.geometry import gram, symmetric_share


@pytest.mark.parametrize("shape", [(5, 7), (511, 30), (512, 40), (517, 9), (2, 514, 20)])
@pytest.mark.parametrize("transposed", [False, True])
def test_it_is_the_product(shape, transposed):
    w = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if transposed:
        w = w.mT.contiguous().mT
    found = gram(w)
    torch.testing.assert_close(found, w @ w.mT, rtol=1e-13, atol=1e-13)
    if shape[-2] >= 512:
        assert torch.equal(found, found.mT)


@pytest.mark.parametrize("d", [100, 600])
def test_the_share_is_that_of_the_products_made(d, monkeypatch):
    made = []
    multiply = torch.Tensor.__matmul__

    def counted(one, two):
        made.append(one.shape[-2] * two.shape[-1])
        return multiply(one, two)

    monkeypatch.setattr(torch.Tensor, "__matmul__", counted)
    gram(torch.ones(d, 3))
    assert sum(made) == symmetric_share(d) * d * d
