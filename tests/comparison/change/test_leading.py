"""Maps above the size for all singular values: leading directions agree with whole spectra."""

import pytest
import torch

from comparison.change.networks import BERT, bert, compared, one
from comparison.change.test_changed_maps import UP, moved, with_signal
from flagscope.comparison.change import leading


def planted():
    a = with_signal(bert())
    b = moved(a, 0.05)
    u, _, vt = torch.linalg.svd(a[UP], full_matrices=False)
    b[UP] += 52.0 * torch.outer(u[:, 20], vt[25])
    return a, b


@pytest.fixture(scope="module")
def both():
    a, b = planted()
    whole = compared(a, b, BERT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leading, "DENSE", 8)
        return whole, compared(a, b, BERT), compared(a, b, BERT, intruders=True)


@pytest.mark.parametrize("name", ["0.up", "1.down", "0.q", "1.o"])
def test_leading_directions_give_what_whole_spectra_give(both, name):
    whole, few = (one(record, name) for record in both[:2])
    assert (whole.depth, few.depth) == ("full", "leading")
    assert few.change == pytest.approx(whole.change, rel=1e-12)
    assert few.spectral_norm == pytest.approx(whole.spectral_norm, rel=0.02)
    assert few.participation == pytest.approx(whole.participation, rel=0.2)
    assert few.energies_b.write_trailing.share is None
    assert few.drift_write.leading is not None
    for ours, theirs in ((few.drift_write, whole.drift_write), (few.drift_read, whole.drift_read)):
        known = {(block.first, block.size): block for block in theirs.blocks}
        for block in ours.blocks:
            if (block.first, block.size) in known:
                same = known[block.first, block.size]
                assert block.mean_square_sine == pytest.approx(same.mean_square_sine, rel=1e-3)
                if block.ratio is not None:
                    assert block.expected == pytest.approx(same.expected, rel=0.15)


def test_intruders_are_found_among_leading_directions(both):
    _, few, counted = both
    found = one(few, "0.up").intruders_b
    assert (found.write, found.read) == (1, 1)
    assert found.peft_count is None
    assert "on request" in found.peft_status
    assert one(few, "0.down").intruders_b.write == 0
    for change, whole in zip(counted.maps, both[0].maps, strict=True):
        assert change.intruders_b.peft_count == whole.intruders_b.peft_count
        assert change.intruders_b.peft_status == "ok"


def test_maps_in_single_precision():
    a, b = ({name: value.float() for name, value in side.items()} for side in planted())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leading, "DENSE", 8)
        for options in ({}, {"intruders": True}):
            change = one(compared(a, b, BERT, **options), "0.up")
            assert change.drift_write.leading.size >= 1
            assert change.intruders_b.write == 1


def test_random_maps_say_that_nothing_leads():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leading, "DENSE", 8)
        a = bert()
        change = one(compared(a, moved(a, 0.1), BERT), "0.up")
    assert change.energies_a.write_leading.share is None
    assert "stands out" in change.energies_a.write_leading.status
    assert change.drift_write.leading is None
    assert change.intruders_a.write is None


def test_a_large_map_is_measured_by_few_products():
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(1100, 1300, generator=draw)
    u, v = (torch.linalg.qr(torch.randn(n, 3, generator=draw))[0] for n in w.shape)
    w = w + (u * torch.tensor([400.0, 300.0, 200.0])) @ v.mT
    side = leading.Directions(w, seed=0)
    assert not side.dense
    assert (side.signal.rank, side.signal.complete) == (3, True)
    truth = torch.linalg.svd(w.double(), full_matrices=False)
    torch.testing.assert_close(side.sigma[:3], truth.S[:3], rtol=1e-5, atol=0)
    assert float((side.left(slice(0, 3)) * truth.U[:, :3]).sum(0).abs().min()) > 1 - 1e-6
    assert float(truth.S[3]) <= side.following * 1.001
