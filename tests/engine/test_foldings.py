"""Maps of sharp scans that several tasks meet, with and without norms."""

import sys

import pytest
import torch

import flagscope
from engine.models import LARGE_LLAMA, large_llama
from flagscope.diagnose import bare_map, sharp_map
from flagscope.diagnose.bare_map import Folding
from flagscope.geometry import Matrices, RankRule

RULE = RankRule.parse("signal")


def records(state, only):
    report = flagscope.scan(
        state, config=LARGE_LLAMA, depth="sharp", only=only, kinds=("mlp", "residual"), edges=0,
        device="cpu", workers=1,
    )  # fmt: skip
    assert report.result.failures == []
    assert {pair.depth for pair in report.result.pairs} == {"sharp"}
    return {pair.name: own_numbers(pair.model_dump()) for pair in report.result.pairs}


def own_numbers(record):
    """A pair's record without what hangs on the report as a whole."""
    if not isinstance(record, dict):
        return record
    return {
        field: own_numbers(value) for field, value in record.items()
        if "adjusted" not in field and "familywise" not in field
    }  # fmt: skip


def test_a_gram_matrix_is_formed_once_and_changes_no_digit(monkeypatch):
    state, formed = large_llama(), []
    module = sys.modules["flagscope.diagnose.bare_map"]
    small_gram = module.small_gram
    monkeypatch.setattr(module, "small_gram", lambda w: formed.append(w.shape) or small_gram(w))
    together = records(state, ("pairs", "residual"))
    # All maps of the second layer, and of the first those that write, or meet in its MLP.
    assert len(formed) == 7 + 4
    apart = records(state, ("pairs",)) | records(state, ("residual",))
    assert together.keys() == apart.keys()
    for name, pair in together.items():
        assert pair == apart[name], name


def matrices(values, delta=0.0):
    return Matrices(values[None], torch.tensor([delta]), torch.zeros(1))


@pytest.mark.parametrize("shape", [(40, 90), (64, 64), (90, 40)])
@pytest.mark.parametrize("gain", ["none", "gain", "one", "zero", "tiny"])
@pytest.mark.parametrize("read", [False, True])
def test_a_folded_map_is_that_of_the_product(shape, gain, read):
    generator = torch.Generator().manual_seed(2)
    w = torch.randn(shape, generator=generator, dtype=torch.float64)
    w = w + 3 * torch.outer(torch.ones(shape[0]), torch.ones(shape[1]))
    scale = torch.exp(torch.randn(shape[0], generator=generator, dtype=torch.float64))
    scale = {
        "none": None, "gain": scale, "one": scale[:1], "zero": scale * (scale > 0.5),
        "tiny": scale * 2.0**-300,
    }[gain]  # fmt: skip
    product = w if scale is None else scale.expand(len(w))[:, None] * w

    def again(values):
        return matrices(values.mT if read else values, 1e-6 * float(values.abs().amax()))

    bare = bare_map(lambda: again(w), read=read, rule=RULE, seed=0)
    found = sharp_map(
        lambda: again(product), read=read, rule=RULE, folding=lambda: Folding(bare, scale)
    )
    plain = sharp_map(lambda: again(product), read=read, rule=RULE)
    assert found.numerical == plain.numerical
    assert found.effective == plain.effective
    assert found.effective >= 1
    one, two = found.side.side, plain.side.side
    torch.testing.assert_close(one.uncentred, two.uncentred, rtol=1e-10, atol=1e-12)
    for field in ("mean", "square", "cube", "fourth"):
        assert getattr(one, field) == pytest.approx(getattr(two, field), rel=1e-9)
