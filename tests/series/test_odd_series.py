"""Series as they lie on disks: links, copies, averages, mixed names, a thousand steps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import flagscope
from flagscope.errors import MissingFileError
from flagscope.series.checks import order as order_module
from flagscope.series.checks.copies import near_equal_faults
from flagscope.series.file_states import file_states
from flagscope.series.places import places
from flagscope.series.step import read_step
from flagscope.series.verify import verified
from series.made import mlp

_RUN = mlp(0, steps=8)


def saved(folder: Path, *names: str) -> Path:
    """The run's steps under names of folders, in their order."""
    for name, (_, state) in zip(names, _RUN, strict=False):
        put(state, folder / name)
    return folder


def put(state: dict[str, Tensor], folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    return folder


def codes(source: object) -> list[tuple[str, list[str]]]:
    report = flagscope.track(source, verify=True)  # pyright: ignore[reportArgumentType]
    return [(fault.code, fault.steps) for fault in report.faults]


@pytest.mark.parametrize("link", ["latest", "checkpoint-last-40"])
@pytest.mark.parametrize("end", ["", "/*"])
def test_a_link_to_a_step_is_not_another_step(link: str, end: str, tmp_path: Path) -> None:
    saved(tmp_path, *(f"checkpoint-{n}" for n in (10, 20, 30, 40)))
    (tmp_path / link).symlink_to("checkpoint-40")
    report = flagscope.track(f"{tmp_path}{end}", verify=True)
    assert report.steps["number"].tolist() == [10, 20, 30, 40]
    assert report.faults == []
    said = [f"{link} is a link to another step, which is read once."] if end else []
    assert report.result.notes == said


def test_a_link_that_is_the_only_way_to_a_step_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "far", *(f"s{n}" for n in (10, 20)))
    for n in (10, 20):
        (tmp_path / f"checkpoint-{n}").symlink_to(f"far/s{n}")
    assert [place.number for place in places([tmp_path])] == [10, 20]


def test_epochs_among_steps_have_no_order_to_check(tmp_path: Path) -> None:
    saved(tmp_path, "checkpoint-10", "checkpoint-20", "epoch-3", "checkpoint-40", "checkpoint-50")
    report = flagscope.track(tmp_path, verify=True)
    assert report.faults == []
    assert any("their order was not checked" in s for s in report.result.integrity.not_looked_at)
    names = [f"checkpoint-{n}" for n in (10, 40, 30, 20, 50, 60)]
    assert codes(saved(tmp_path / "wrong", *names)) == [
        ("wrong-order", ["checkpoint-20", "checkpoint-40"])
    ]


def test_averages_next_to_steps_are_not_a_way_back(tmp_path: Path) -> None:
    average: dict[str, Tensor] = {}
    for number, (_, state) in enumerate(_RUN):
        average = {
            name: 0.7 * average.get(name, tensor) + 0.3 * tensor for name, tensor in state.items()
        }
        put(state, tmp_path / f"step_{number}")
        near = average if number else {name: tensor + 1e-3 for name, tensor in state.items()}
        put(near, tmp_path / f"step_{number}_ema")
    assert [code for code, _ in codes(tmp_path) if code in ("rolled-back", "wrong-order")] == []
    report = flagscope.track(tmp_path, verify=True)
    said = " ".join(report.result.integrity.not_looked_at)
    assert (
        "Steps with the number of another were left out of the check of order: step_0_ema" in said
    )


def test_numbers_that_differ_in_zeros_alone_are_one_number(tmp_path: Path) -> None:
    saved(tmp_path, "checkpoint-10", "checkpoint-20", "checkpoint-0030", "checkpoint-40")
    shutil.copytree(tmp_path / "checkpoint-0030", tmp_path / "checkpoint-30")
    assert codes(tmp_path) == [("equal", ["checkpoint-0030", "checkpoint-30"])]


def test_the_best_of_all_has_no_place_in_the_order(tmp_path: Path) -> None:
    saved(tmp_path, *(f"checkpoint-{n}" for n in (10, 20, 30, 40, 50)))
    near = {name: tensor + 1e-2 for name, tensor in _RUN[1][1].items()}
    put(near, tmp_path / "best")
    found = codes([tmp_path, tmp_path / "best"])
    assert not [code for code, steps in found if code in ("rolled-back", "wrong-order")]


def test_a_state_next_to_files_is_that_of_the_run(tmp_path: Path) -> None:
    for number, state in _RUN[:4]:
        save_file(state, tmp_path / f"step_{number}.safetensors")
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 30}))
    report = flagscope.track(tmp_path, verify=True)
    assert report.faults == []
    assert [step.trainer_step for step in report.result.steps] == [None] * 4
    assert any("trainer_state.json of its own" in s for s in report.result.integrity.not_looked_at)


def test_what_a_pattern_matches_besides_is_said(tmp_path: Path) -> None:
    for run in "ab":
        saved(tmp_path / run, *(f"checkpoint-{n}" for n in (10, 20)))
    (tmp_path / "tensorboard").mkdir()
    report = flagscope.track(f"{tmp_path}/*", verify=True)
    assert report.runs["name"].tolist() == ["a", "b"]
    assert report.result.notes == ["tensorboard matches the pattern and holds no checkpoint."]
    with pytest.raises(MissingFileError, match="holds no checkpoints") as error:
        places([tmp_path])
    assert f"a, b in it hold steps: give {tmp_path}/*" in str(error.value.hint)
    with pytest.raises(MissingFileError, match="tensorboard"):
        places([f"{tmp_path}/tens*"])


def test_names_with_several_numbers_are_refused_with_what_would_do(tmp_path: Path) -> None:
    saved(tmp_path, *(f"lr1e-4_bs32_{n}" for n in (10, 20)))
    with pytest.raises(MissingFileError, match="names say which step") as error:
        places([tmp_path])
    assert "lr1e-4_bs32_10" in str(error.value.hint)


def test_pieces_of_fsdp_are_read_from_the_folder_of_the_step(tmp_path: Path) -> None:
    from torch.distributed.checkpoint.state_dict_saver import save

    for number, state in _RUN[:4]:
        pieces = tmp_path / f"checkpoint-{number}" / "pytorch_model_fsdp_0"
        with pytest.warns(UserWarning, match="single process"):
            save({"model": state}, checkpoint_id=str(pieces), no_dist=True)
        (pieces.parent / "config.json").write_text(json.dumps({"model_type": "odd"}))
    report = flagscope.track(tmp_path, verify=True)
    assert report.faults == []
    assert report.steps["tensors"].tolist() == [len(_RUN[0][1])] * 4
    with flagscope.checkpoint.open_checkpoint(tmp_path / "checkpoint-10") as checkpoint:
        assert checkpoint.config == {"model_type": "odd"}
    place = places([tmp_path])[0]
    before = file_states(place)
    piece = next(tmp_path.glob("checkpoint-0/*/*.distcp"))
    piece.write_bytes(piece.read_bytes() + b" ")
    assert file_states(place) != before


def test_the_longest_run_is_what_trying_all_gives() -> None:
    draws = np.random.default_rng(0)
    for _ in range(200):
        order = draws.permutation(7).tolist()
        moved = order_module._moved(order)
        left = [place for place in order if place not in moved]
        assert left == sorted(left)
        longest = max(
            bin(mask).count("1")
            for mask in range(1, 2**7)
            if (run := [place for i, place in enumerate(order) if mask >> i & 1]) == sorted(run)
        )
        partners = sum(order[order[p]] == p and order[p] != p for p in range(7))
        assert 7 - longest <= len(moved) <= 7 - longest + partners


@pytest.mark.parametrize("seed", range(3))
def test_near_equal_steps_are_those_of_all_pairs(seed: int, tmp_path: Path) -> None:
    """Planted roundings, copies but for one tensor and small moves, among 24 steps."""
    draws = torch.Generator().manual_seed(seed)
    state = {f"t{i}.weight": torch.randn(40, 40, generator=draws) for i in range(30)}
    for number in range(24):
        state = {n: t + 0.05 * torch.randn(t.shape, generator=draws) for n, t in state.items()}
        put(state, tmp_path / f"step-{10 * number}")
        if number == 5:
            put({n: t.bfloat16().float() for n, t in state.items()}, tmp_path / "step-55")
        if number == 9:
            put({**state, "t3.weight": state["t3.weight"] + 1}, tmp_path / "step-155")
        if number == 15:
            little = {n: 1e-5 * torch.randn(t.shape, generator=draws) for n, t in state.items()}
            put({n: t + little[n] for n, t in state.items()}, tmp_path / "step-157")
    _, series = verified([read_step(place) for place in places([tmp_path])])
    found = {tuple(fault.steps): fault.evidence for fault in near_equal_faults(series, set())}
    assert set(found) == {("step-50", "step-55"), ("step-90", "step-155"), ("step-150", "step-157")}
    assert "rounded to bfloat16" in found["step-50", "step-55"]
    assert "29 of 30 tensors" in found["step-90", "step-155"]
    assert "of the distance to the next step" in found["step-150", "step-157"]


def test_a_rounding_is_seen_with_negative_zeros(tmp_path: Path) -> None:
    half = [
        {name: torch.where(torch.arange(t.shape[-1]) % 2 == 0, 0.0, t) for name, t in state.items()}
        for _, state in _RUN
    ]
    for number, state in zip((10, 20, 30, 40), half, strict=False):
        put(state, tmp_path / f"step-{number}")
    coarse = {name: tensor.bfloat16().float() for name, tensor in half[1].items()}
    put({n: torch.where(t == 0, -0.0, t) for n, t in coarse.items()}, tmp_path / "step-25")
    assert ("near-equal", ["step-20", "step-25"]) in codes(tmp_path)
