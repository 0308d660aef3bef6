"""What moved in maps: planted changes, and numpy's singular value decomposition."""

import math

import numpy as np
import pytest
import torch

from comparison.change.networks import BERT, LLAMA, bert, compared, llama, one
from flagscope.records.comparison.change import ChangeRecord

UP = "encoder.layer.0.intermediate.dense.weight"
TINY = 1e-12


def with_signal(weights):
    """A few directions stand out of each map, with gaps between them."""
    draw = torch.Generator().manual_seed(9)
    for name, value in weights.items():
        if value.ndim == 2 and "embed" not in name:
            u, v = (torch.linalg.qr(torch.randn(n, 4, generator=draw, dtype=torch.float64))[0]
                    for n in value.shape)  # fmt: skip
            value += (u * torch.tensor([60.0, 45.0, 34.0, 25.0], dtype=torch.float64)) @ v.mT
    return weights


def moved(weights, size, seed=1):
    """All maps moved by Gaussian noise of a size relative to their spread."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: value + size * torch.randn(*value.shape, generator=draw, dtype=value.dtype)
        if value.ndim == 2 and "embed" not in name
        else value.clone()
        for name, value in weights.items()
    }


@pytest.fixture(scope="module")
def noisy():
    a = with_signal(bert())
    b = moved(a, 0.05)
    return a, b, compared(a, b, BERT)


def test_identical_weights_have_no_distance():
    record = compared(bert(), bert(), BERT)
    assert len(record.maps) == 12
    assert {change.status for change in record.maps} == {"identical"}
    assert {change.change for change in record.maps} == {0.0}
    assert {product.change for product in record.products} == {0.0}
    assert {tensor.change for tensor in record.tensors} == {0.0}
    assert (record.change, record.identical, record.moved) == (0.0, 12, 0)


@pytest.mark.parametrize(("name", "tensor"), [
    ("0.up", UP), ("1.down", "encoder.layer.1.output.dense.weight"),
    ("0.o", "encoder.layer.0.attention.output.dense.weight"),
])  # fmt: skip
def test_numbers_of_a_map_are_those_of_numpy(noisy, name, tensor):
    a, b, record = noisy
    change = one(record, name)
    w, other = a[tensor].numpy(), b[tensor].numpy()
    delta = other - w
    values = np.linalg.svd(delta, compute_uv=False)
    size = np.linalg.norm(delta)
    assert change.status == "ok"
    assert change.change == pytest.approx(size, rel=TINY)
    assert change.relative_a == pytest.approx(size / np.linalg.norm(w), rel=TINY)
    assert change.relative_b == pytest.approx(size / np.linalg.norm(other), rel=TINY)
    assert change.spectral_norm == pytest.approx(values[0], rel=TINY)
    assert change.participation == pytest.approx(
        (values**2).sum() ** 2 / (values**4).sum(), rel=TINY
    )
    u, _, vt = np.linalg.svd(w, full_matrices=False)
    energies = change.energies_a
    k = energies.signal_rank
    assert k >= 4
    inside = np.linalg.norm(u[:, :k].T @ delta) ** 2 / size**2
    assert energies.write_leading.share == pytest.approx(inside, rel=TINY)
    inside = np.linalg.norm(delta @ vt[:k].T) ** 2 / size**2
    assert energies.read_leading.share == pytest.approx(inside, rel=TINY)
    assert energies.read_leading.ratio == pytest.approx(inside * w.shape[1] / k, rel=TINY)
    short = u[:, -k:].T @ delta if w.shape[0] <= w.shape[1] else delta @ vt[-k:].T
    share = energies.write_trailing if w.shape[0] <= w.shape[1] else energies.read_trailing
    assert share.share == pytest.approx(np.linalg.norm(short) ** 2 / size**2, rel=1e-9)


def test_drift_is_that_of_numpy(noisy):
    a, b, record = noisy
    u, s, vt = np.linalg.svd(a[UP].numpy(), full_matrices=False)
    x, t, yt = np.linalg.svd(b[UP].numpy(), full_matrices=False)
    for drift, one_, other in (
        (one(record, "0.up").drift_write, u, x), (one(record, "0.up").drift_read, vt.T, yt.T),
    ):  # fmt: skip
        assert drift.status == "ok"
        for block in (drift.leading, *drift.blocks):
            part = slice(block.first, block.first + block.size)
            cosines = np.linalg.svd(one_[:, part].T @ other[:, part], compute_uv=False)
            assert block.mean_square_sine == pytest.approx((1 - cosines**2).mean(), abs=1e-13)
            assert block.largest_angle == pytest.approx(
                math.acos(min(1, cosines.min())), rel=1e-6, abs=1e-7
            )
            assert block.sigma_a == pytest.approx(s[block.first], rel=TINY)
            assert block.sigma_b == pytest.approx(t[block.first], rel=TINY)
    assert one(record, "0.up").drift_write.freedom == "permutation"
    assert one(record, "0.up").drift_read.freedom == "none"
    assert one(record, "0.q").drift_write.freedom == "gl"
    assert one(record, "0.o").drift_read.freedom == "gl"


def test_drift_of_random_updates_is_as_expected():
    a = with_signal(bert())
    ratios, small = [], 0
    for seed in range(8):
        record = compared(a, moved(a, 0.05, seed=seed + 2), BERT)
        for change in record.maps:
            for drift in (change.drift_write, change.drift_read):
                ratios.append(drift.leading.ratio)
                small += drift.leading.p < 0.05
    # 8 · 24 ratios of mean 1: within 4 standard errors, and as many small p-values as chance gives.
    spread = np.std(ratios) / math.sqrt(len(ratios))
    assert abs(np.mean(ratios) - 1) < 4 * spread + 0.02
    assert small <= 0.05 * len(ratios) + 4 * math.sqrt(0.0475 * len(ratios))


def test_an_update_along_leading_directions_is_found_there():
    a = with_signal(bert())
    u, s, vt = torch.linalg.svd(a[UP], full_matrices=False)
    b = {name: value.clone() for name, value in a.items()}
    b[UP] += 0.1 * (u[:, :2] * s[:2]) @ vt[:2]
    change = one(compared(a, b, BERT), "0.up")
    assert change.signal_rank == 2
    assert change.energies_a.write_leading.share == pytest.approx(1, abs=1e-9)
    assert change.energies_a.write_leading.log10_p < -3
    assert change.drift_write.leading.mean_square_sine < 1e-12
    assert change.intruders_b.write == 0
    assert one(compared(a, b, BERT), "1.up").status == "identical"


def test_energy_in_fixed_spaces_is_not_significant_by_chance():
    a = with_signal(bert())
    values = []
    for seed in range(12):
        record = compared(a, moved(a, 0.05, seed=seed + 30), BERT)
        for change in record.maps:
            shares = change.energies_a
            values += [shares.write_leading.p, shares.read_leading.p]
    values = np.array(values)
    for level in (0.05, 0.01):
        assert (values < level).mean() <= level + 4 * math.sqrt(level / len(values))


def test_uneven_rows_do_not_make_an_alignment():
    # Rows of one scale profile in the map and in the update: aligned by Haar's null alone.
    draw = torch.Generator().manual_seed(3)
    profile = torch.exp(torch.randn(48, 1, generator=draw, dtype=torch.float64))
    a = with_signal(bert())
    small = []
    for seed in range(20):
        draw = torch.Generator().manual_seed(100 + seed)
        w = {name: value.clone() for name, value in a.items()}
        w[UP] = profile * w[UP]
        b = {name: value.clone() for name, value in w.items()}
        b[UP] += 0.05 * profile * torch.randn(48, 32, generator=draw, dtype=torch.float64)
        share = one(compared(w, b, BERT), "0.up").energies_a.write_leading
        small.append(share.p)
    assert np.mean(np.array(small) < 0.05) <= 0.15


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_is_told_apart_from_a_move(dtype):
    a = bert(dtype=torch.float32)
    b = {name: value.to(dtype).float() for name, value in a.items()}
    stored = {name: value.to(dtype) for name, value in a.items()}
    record = compared(a, stored, BERT)
    assert record.within_rounding == 12
    shares = [change.rounding_share for change in record.maps]
    assert min(shares) > 0.85
    assert max(shares) < 1.15
    # The same numbers in float32 know nothing of that rounding.
    assert compared(a, b, BERT).moved == 12


def test_one_unit_in_the_last_place_is_less_than_rounding_can_tell():
    a = bert(dtype=torch.bfloat16)
    b = {name: value.clone() for name, value in a.items()}
    b[UP][3, 4] = torch.nextafter(b[UP][3, 4], torch.tensor(9.0, dtype=torch.bfloat16))
    change = one(compared(a, b, BERT), "0.up")
    assert change.change > 0
    assert change.status == "moved less than rounding can tell"


def test_the_mirror():
    a, b = with_signal(llama(dtype=torch.float32)), moved(llama(dtype=torch.float32), 0.3)
    record, other = compared(a, b, LLAMA), compared(b, a, LLAMA)
    assert record.mirrored().mirrored() == record
    # Computed in the other order the digits may differ in the last places, and nothing else does.
    assert close(record.mirrored().model_dump(), other.model_dump())
    assert record.mirrored().maps[0].tensor_a == record.maps[0].tensor_b
    assert ChangeRecord.model_validate_json(record.model_dump_json()) == record


def close(x, y):
    if isinstance(x, dict):
        return x.keys() == y.keys() and all(close(x[key], y[key]) for key in x)
    if isinstance(x, (list, tuple)):
        return len(x) == len(y) and all(map(close, x, y))
    if isinstance(x, float) and isinstance(y, float):
        return math.isclose(x, y, rel_tol=1e-6, abs_tol=1e-9)
    return x == y


def test_layers_and_the_whole(noisy):
    a, b, record = noisy
    layer = next(x for x in record.layers if (x.layer, x.role) == (1, "q"))
    name = "encoder.layer.1.attention.self.query.weight"
    assert layer.relative_a == pytest.approx(
        float((b[name] - a[name]).norm() / a[name].norm()), rel=1e-12
    )
    assert (layer.maps, layer.identical) == (1, 0)
    total = math.sqrt(sum(change.change**2 for change in record.maps))
    assert record.change == pytest.approx(total, rel=1e-12)
    assert len(record.layers) == 12


def test_tensors_outside_the_maps():
    a = bert(dtype=torch.float32)
    b = {name: value.clone() for name, value in a.items()}
    name = "encoder.layer.0.output.LayerNorm.weight"
    b[name] *= 1.5
    del b["encoder.layer.1.output.dense.bias"]
    record = compared(a, b, BERT)
    assert next(t for t in record.tensors if t.name_a == name).relative_a == pytest.approx(0.5)
    assert {t.status for t in record.tensors if t.name_a != name} == {"identical"}
    assert any("1 tensor(s) outside the maps" in note for note in record.notes)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_maps_that_are_not_finite_say_so(value):
    a, b = bert(dtype=torch.float32), moved(bert(dtype=torch.float32), 0.1)
    b[UP][0, 0] = value
    b["encoder.layer.0.attention.self.query.weight"][5, 5] = value
    b["encoder.layer.0.output.dense.bias"][0] = value
    record = compared(a, b, BERT)
    assert one(record, "0.up").status == "not finite"
    assert one(record, "1.up").status == "ok"
    assert {p.status for p in record.products if p.name.startswith("layer.0") and p.kind == "qk"
            } == {"not finite"}  # fmt: skip
    ChangeRecord.model_validate_json(record.model_dump_json())


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e150])
def test_any_size_of_entries(scale):
    a = with_signal(bert())
    b = moved(a, 0.05)
    plain = one(compared(a, b, BERT), "0.up")
    scaled = compared(
        {name: value * scale for name, value in a.items()},
        {name: value * scale for name, value in b.items()}, BERT,
    )  # fmt: skip
    change = one(scaled, "0.up")
    assert change.change == pytest.approx(plain.change * scale, rel=1e-9)
    assert change.drift_write.leading.mean_square_sine == pytest.approx(
        plain.drift_write.leading.mean_square_sine, rel=1e-6
    )
    ChangeRecord.model_validate_json(scaled.model_dump_json())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-20, 1e-36, 1e-170, 1e-300])
def test_changes_however_small_are_measured(dtype, size):
    # One entry that is nearly nothing, and changes.
    a = bert(dtype=dtype)
    a[UP][0, 0] = size
    b = {name: value.clone() for name, value in a.items()}
    b[UP][0, 0] *= 1.5
    record = compared(a, b, BERT)
    change = one(record, "0.up")
    equal = torch.equal(a[UP], b[UP])
    assert change.status == ("identical" if equal else "moved less than rounding can tell")
    ChangeRecord.model_validate_json(record.model_dump_json())


def test_zero_maps_and_maps_that_one_side_lacks():
    a, b = bert(dtype=torch.float32), bert(dtype=torch.float32)
    b[UP] = torch.zeros_like(b[UP])
    change = one(compared(a, b, BERT), "0.up")
    assert change.relative_a == pytest.approx(1)
    assert change.relative_b is None
    assert change.energies_a is None
    short = {**BERT, "num_hidden_layers": 1}
    less = {name: value for name, value in a.items() if "layer.1." not in name}
    (checkpoint, graph), (other, fewer) = both = graphs(a, BERT), graphs(less, short)
    assert both
    from flagscope.comparison.change.changed_maps import changed_maps

    record = changed_maps(checkpoint, other, graph, fewer)
    assert len(record.unpaired_a) == 6
    assert record.identical == 6


def graphs(weights, config):
    from comparison.change.networks import graphed

    return graphed(weights, config)


def test_more_workers_give_the_same(noisy):
    a, b, record = noisy
    assert compared(a, b, BERT, workers=3) == record
