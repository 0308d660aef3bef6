"""A series of adapters: numbers of ΔW against a dense SVD, planted spikes and dead directions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import flagscope
from flagscope.api import tracked_adapters as module
from flagscope.records.series_adapter import AdapterCurves
from flagscope.report.series import adapter_lines, nothing_stands_out
from series import made
from series.made import Run, adapters

PREFIX = "base_model.model."
Q0, V1 = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"
SETTINGS = {"peft_type": "LORA", "r": 8, "lora_alpha": 16}


def saved(run: Run, folder: Path, **settings: object) -> Path:
    for step, state in run:
        inner = folder / f"checkpoint-{step}"
        inner.mkdir(parents=True)
        plain = {name: tensor.contiguous() for name, tensor in state.items()}
        save_file(plain, inner / "adapter_model.safetensors")
        (inner / "adapter_config.json").write_text(json.dumps({**SETTINGS, **settings}))
    return folder


def tracked(run: Run, folder: Path, **settings: object) -> flagscope.SeriesReport:
    return flagscope.track(saved(run, folder, **settings))


def curves_of(report: flagscope.SeriesReport, name: str) -> AdapterCurves:
    return next(one for one in report.result.adapters if one.module == name)


def factors(state: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return state[f"{PREFIX}{name}.lora_A.weight"], state[f"{PREFIX}{name}.lora_B.weight"]


@pytest.mark.parametrize(
    ("settings", "scaling"),
    [({}, 2.0), ({"use_rslora": True}, 16 / 8**0.5), ({"fan_in_fan_out": True}, 2.0),
     ({"alpha_pattern": {"q_proj": 4}}, 0.5)],
)  # fmt: skip
def test_numbers_are_those_of_the_dense_change(
    tmp_path: Path, settings: dict[str, object], scaling: float
) -> None:
    run = adapters(0, steps=4)
    report = tracked(run, tmp_path, **settings)
    curves = curves_of(report, Q0)
    others = [one.module for one in report.result.adapters if one.module != Q0]
    start = factors(run[0][1], Q0)[0].double().numpy()
    for place, (_, state) in enumerate(run):
        a, b = (factor.double().numpy() for factor in factors(state, Q0))
        sigma = np.linalg.svd(scaling * b @ a, compute_uv=False)[:8]
        size = np.linalg.norm(sigma)
        assert curves.rank[place] == 8
        assert curves.scaling[place] == pytest.approx(scaling, abs=1e-15)
        assert curves.singular_values[place] == pytest.approx(list(sigma), abs=1e-10)
        assert curves.values("norm")[place] == pytest.approx(size, abs=1e-10)
        assert curves.values("leading")[place] == pytest.approx(sigma[0], abs=1e-10)
        assert curves.values("used_rank")[place] == np.linalg.matrix_rank(b @ a)
        assert curves.values("zero_directions")[place] == (8 if place == 0 else 0)
        drift = np.linalg.norm(a - start) / np.linalg.norm(start)
        assert curves.values("drift")[place] == pytest.approx(drift, abs=1e-10)
        kept = np.linalg.svd(np.linalg.qr(a.T)[0].T @ np.linalg.qr(start.T)[0], compute_uv=False)
        assert curves.values("space_kept")[place] == pytest.approx((kept**2).mean(), abs=1e-10)
        if place == 0:
            assert curves.values("leading_share")[0] is curves.values("leading_ratio")[0] is None
            continue
        assert curves.values("leading_share")[place] == pytest.approx(sigma[0] ** 2 / size**2)
        fourth = size**4 / (sigma**4).sum()
        assert curves.values("participation")[place] == pytest.approx(fourth)
        rest = [curves_of(report, name).singular_values[place][0] for name in others]
        ratio = sigma[0] / np.median(rest)
        assert curves.values("leading_ratio")[place] == pytest.approx(ratio, abs=1e-10)
    assert curves.spike_since is None
    assert curves.dead == []
    assert report.result.notes == []


def test_labels_are_what_another_split_leaves_and_moves(tmp_path: Path) -> None:
    run = adapters(0, steps=3)
    draws = torch.Generator().manual_seed(5)
    turned: Run = []
    for place, (step, state) in enumerate(run):
        other = dict(state)
        for name in (Q0, V1):
            a, b = (factor.double() for factor in factors(state, name))
            # Another split at each step but the first, which is what steps are held against.
            g = torch.eye(8) if place == 0 else torch.eye(8) + torch.rand(8, 8, generator=draws)
            other[f"{PREFIX}{name}.lora_A.weight"] = torch.linalg.inv(g.double()) @ a
            other[f"{PREFIX}{name}.lora_B.weight"] = b @ g.double()
        turned.append((step, other))
    one, two = tracked(run, tmp_path / "one"), tracked(turned, tmp_path / "two")
    first, second = curves_of(one, Q0), curves_of(two, Q0)
    for number in first.numbers:
        values = second.values(number.observable)
        if number.label == "functional":
            expected = [None if x is None else pytest.approx(x, rel=1e-6) for x in number.values]
            assert values == expected, number.observable
    assert first.values("drift")[1:] != pytest.approx(second.values("drift")[1:], rel=0.1)
    assert {one.label for one in first.numbers} == {"functional", "gauge"}


def test_a_planted_spike_is_named_with_its_step_and_no_other(tmp_path: Path) -> None:
    run = adapters(1, steps=8)
    for place, (_, state) in enumerate(run):
        if place >= 3:
            factors(state, V1)[1].add_(0.1 * (place - 2))
    report = tracked(run, tmp_path)
    named = {one.module: one.spike_since for one in report.result.adapters if one.spike_since}
    assert named == {V1: "checkpoint-150"}
    curves = curves_of(report, V1)
    ratios = [x for x in curves.values("leading_ratio") if x is not None]
    assert ratios[-1] > ratios[2] > 5 > 2 > ratios[1]
    assert curves.values("signal_rank")[-1] == 1
    (line,) = adapter_lines(report.result)
    assert line.startswith(f"spike: {V1}, from checkpoint-150 on")


def test_a_spike_that_is_gone_at_the_end_is_not_named(tmp_path: Path) -> None:
    run = adapters(1, steps=5)
    factors(run[3][1], V1)[1][:, 0] += 1
    report = tracked(run, tmp_path)
    assert all(one.spike_since is None for one in report.result.adapters)
    assert (curves_of(report, V1).values("leading_ratio")[3] or 0) > 5


def test_dead_directions_of_three_kinds_are_named_with_their_step(tmp_path: Path) -> None:
    run = adapters(2, steps=7)
    kept = [factor.clone() for factor in factors(run[2][1], V1)]
    for place, (_, state) in enumerate(run):
        a, b = factors(state, Q0)
        if place >= 4:
            a[5:], b[:, 5:] = 0, 0
        b[:, 1] = 0  # from the start, while A moves
        if place >= 2:
            factors(state, V1)[0][6], factors(state, V1)[1][:, 6] = kept[0][6], kept[1][:, 6]
    report = tracked(run, tmp_path)
    dead = {
        one.module: [(d.kind, d.directions, d.since) for d in one.dead]
        for one in report.result.adapters if one.dead
    }  # fmt: skip
    assert dead == {
        Q0: [("deadlock", [5, 6, 7], "checkpoint-200"), ("zero", [1], "checkpoint-0")],
        V1: [("still", [6], "checkpoint-100")],
    }
    lines = adapter_lines(report.result)
    assert any("directions 5–7 of 8 in" in line and "gradient" in line for line in lines)
    assert curves_of(report, Q0).values("used_rank")[-1] == 4


def test_the_usual_start_and_a_pause_are_not_dead(tmp_path: Path) -> None:
    run = adapters(3, steps=1)
    assert all(one.dead == [] for one in tracked(run, tmp_path / "one").result.adapters)
    run = adapters(3, steps=3)
    still: Run = [*run[:2], *((step, run[2][1]) for step in (100, 150, 200, 250))]
    assert all(one.dead == [] for one in tracked(still, tmp_path / "two").result.adapters)


def expanded_training(noise: float) -> Run:
    """A linear net with LoRA, whose rank is expanded from 4 to 6 half-way, and trained on."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 12, generator=draws) / 3
    truth = weight + torch.randn(10, 12, generator=draws)
    a = nn.Parameter(torch.randn(4, 12, generator=draws) / 3)
    b = nn.Parameter(torch.zeros(10, 4))
    run: Run = []
    for stage in range(2):
        if stage:
            a = nn.Parameter(torch.cat([a.detach(), noise * torch.ones(2, 12)]))
            b = nn.Parameter(torch.cat([b.detach(), torch.zeros(10, 2)], 1))
        optimizer = torch.optim.AdamW([a, b], lr=1e-2)
        for step in range(60 if stage == 0 else 61):
            if step % 20 == 0:
                names = (f"{PREFIX}net.lora_A.weight", f"{PREFIX}net.lora_B.weight")
                state = dict(zip(names, (a.detach().clone(), b.detach().clone()), strict=True))
                run.append((60 * stage + step, state))
            x = torch.randn(32, 12, generator=draws)
            loss = (x @ (weight + 2 * b @ a - truth).T).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return run


def test_a_rank_expanded_by_zeros_stays_dead_in_training(tmp_path: Path) -> None:
    (curves,) = tracked(expanded_training(0.0), tmp_path / "zeros").result.adapters
    assert curves.rank == [4, 4, 4, 6, 6, 6, 6]
    assert [(d.kind, d.directions, d.since) for d in curves.dead] == [
        ("deadlock", [4, 5], "checkpoint-60")
    ]
    assert curves.values("used_rank") == [0, 4, 4, 4, 4, 4, 4]
    (curves,) = tracked(expanded_training(0.1), tmp_path / "noise").result.adapters
    assert curves.dead == []


@pytest.mark.parametrize("seed", range(3))
def test_random_factors_have_no_signal_and_one_strong_direction_has(
    tmp_path: Path, seed: int
) -> None:
    draws = torch.Generator().manual_seed(seed)
    state, through = {}, {}
    for number in range(40):
        name = f"{PREFIX}layers.{number}.q"
        a = torch.rand(8, 48, generator=draws) - 0.5
        state[f"{name}.lora_A.weight"] = through[f"{name}.lora_A.weight"] = a
        state[f"{name}.lora_B.weight"] = torch.randn(64, 8, generator=draws)
        through[f"{name}.lora_B.weight"] = torch.randn(64, 48, generator=draws) @ a.T
    strong = state | {
        name: tensor + torch.outer(torch.randn(64, generator=draws), torch.ones(8))
        for name, tensor in state.items() if "lora_B" in name
    }  # fmt: skip
    for given, expected in ((state, 0.0), (through, 0.0), (strong, 1.0)):
        report = tracked([(0, given)], tmp_path / str(id(given)))
        ranks = [one.values("signal_rank")[0] for one in report.result.adapters]
        assert sum(rank != expected for rank in ranks) <= 2
    single = {name: tensor[:1] if "A" in name[-9:] else tensor[:, :1]
              for name, tensor in state.items()}  # fmt: skip
    report = tracked([(0, single)], tmp_path / "single")
    assert {one.values("signal_rank")[0] for one in report.result.adapters} == {None}


def test_embeddings_start_with_random_b(tmp_path: Path) -> None:
    draws = torch.Generator().manual_seed(0)
    b = torch.randn(16, 4, generator=draws)
    names = [f"{PREFIX}embed.lora_embedding_{side}" for side in "AB"]
    run: Run = [
        (step, {names[0]: step * torch.randn(4, 50, generator=draws), names[1]: b * (1 + step / 8)})
        for step in (0, 1, 2)
    ]
    (curves,) = tracked(run, tmp_path).result.adapters
    assert curves.random == "lora_B"
    assert curves.values("drift") == pytest.approx([0, 1 / 8, 2 / 8])
    assert curves.values("space_kept") == pytest.approx([1, 1, 1])
    change = 4.0 * run[2][1][names[1]].double() @ run[2][1][names[0]].double()
    expected = torch.linalg.svdvals(change)[:4].tolist()
    assert curves.singular_values[2] == pytest.approx(expected, abs=1e-9)


def test_what_is_not_measured_is_said(tmp_path: Path) -> None:
    run = adapters(0, steps=2)
    for _, state in run:
        state[f"{PREFIX}lm_head.weight"] = torch.ones(4, 4)
    report = tracked(
        run, tmp_path / "a", use_dora=True, alpha_pattern={".*q_proj": 4, "(v|k)_proj": 2}
    )
    notes = " ".join(report.result.notes)
    assert "DoRA rescales the merged rows" in notes
    assert "An alpha_pattern was not run" in notes
    assert "stores whole" in notes
    factors(run[1][1], Q0)[0][0, 0] = torch.nan
    report = tracked(run, tmp_path / "b")
    assert any(note.startswith("checkpoint-50 was not measured") for note in report.result.notes)
    assert curves_of(report, Q0).rank == [8, None]


def test_frame_has_a_row_for_each_number(tmp_path: Path) -> None:
    report = tracked(adapters(0, steps=3), tmp_path)
    frame = report.adapters
    assert list(frame.columns) == [
        "step",
        "number",
        "module",
        "observable",
        "value",
        "label",
        "run",
    ]
    last = frame[(frame["module"] == Q0) & (frame["number"] == 100)].set_index("observable")
    assert last.loc["sigma_1", "value"] == curves_of(report, Q0).singular_values[2][0]
    assert last.loc["sigma_8", "label"] == "functional"
    assert last.loc["drift", "label"] == "gauge"
    assert last.loc["rank", "value"] == 8


def test_a_longer_series_reads_its_new_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = adapters(0, steps=5)
    folder, store = saved(run[:4], tmp_path / "run"), tmp_path / "store"
    flagscope.track(folder, store=store)
    saved(run[4:], folder)
    read: list[str] = []
    original = module.read_adapter
    monkeypatch.setattr(
        module, "read_adapter", lambda path: read.append(Path(path).name) or original(path)
    )
    longer = flagscope.track(folder, store=store)
    assert read == ["checkpoint-200"]
    assert longer.to_json() == flagscope.track(folder).to_json()
    for path in (store / "steps").iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    assert flagscope.track(folder, store=store).to_json() == longer.to_json()


def test_a_first_step_of_nan_leaves_the_others_measured(tmp_path: Path) -> None:
    run = adapters(0, steps=3)
    factors(run[0][1], Q0)[0][:] = torch.nan
    report = tracked(run, tmp_path)
    assert curves_of(report, Q0).rank == [None, 8, 8]
    assert curves_of(report, Q0).values("drift")[1] == 0.0
    assert [note for note in report.result.notes if "was not measured" in note] != []
    assert not any(note.startswith("checkpoint-50 was") for note in report.result.notes)


def test_what_is_not_looked_for_among_modules_is_not_denied(tmp_path: Path) -> None:
    run = adapters(0, steps=3)
    record = tracked(run, tmp_path / "all").result
    assert nothing_stands_out(record) == "no module spikes, no direction is dead"
    two = [(step, {n: w for n, w in state.items() if "layers.0" in n}) for step, state in run[:2]]
    assert nothing_stands_out(tracked(two, tmp_path / "two").result) == (
        "spikes were not looked for: fewer than 4 modules change anything, no direction is dead as "
        "far as 2 steps can show"
    )


def test_an_adapter_among_full_checkpoints_leaves_their_maps_followed(tmp_path: Path) -> None:
    saved([(7, adapters(0, steps=1)[0][1])], tmp_path)
    made.saved(made.mlp(0, steps=3), tmp_path)
    report = flagscope.track(tmp_path)
    assert "Motions of maps pass over checkpoint-7 (adapter)." in report.result.notes
    assert report.result.motion[0].change[1] is None  # step 7 is the adapter
    assert report.result.motion[0].change[2] is not None
