"""Twelve things that happen to series are named with their step, and sound series have none."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch

from series.made import Run, State, adapters, bundled, checked, mlp, parts, saved

SHARDS = {"shards": 3, "adapter": 1, "bundled": 1}
SERIES = tuple(SHARDS)
LONG = ("shards", "adapter")  # the bundled one has five steps, far apart, in float16


@cache
def _run(name: str, seed: int = 0) -> Run:
    if name == "bundled":
        run = bundled()
        if seed:  # another training: the same numbers in other places
            draws = torch.Generator().manual_seed(seed)
            places = {
                key: torch.randperm(one.numel(), generator=draws)
                for key, one in run[0][1].items()
            }  # fmt: skip
            return [
                (step, {
                    key: one.flatten()[places[key]].reshape(one.shape)
                    for key, one in state.items()
                })
                for step, state in run
            ]  # fmt: skip
        return run
    return mlp(seed) if name == "shards" else adapters(seed)


def _found(run: Run, name: str, folder: Path) -> list[tuple[str, list[str]]]:
    integrity = checked(saved(run, folder, shards=SHARDS[name]))
    return [(fault.code, fault.steps) for fault in integrity.faults]


def _step(run: Run, place: int) -> str:
    return f"checkpoint-{run[place][0]}"


@pytest.mark.parametrize("name", SERIES)
def test_a_sound_series_has_no_fault(name: str, tmp_path: Path) -> None:
    assert _found(_run(name), name, tmp_path) == []


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shards", [1, 3])
def test_sound_trainings_have_none(seed: int, optimizer: str, shards: int, tmp_path: Path) -> None:
    assert checked(saved(mlp(seed, optimizer=optimizer), tmp_path, shards=shards)).faults == []


@pytest.mark.parametrize("name", SERIES)
def test_equal_steps(name: str, tmp_path: Path) -> None:
    run = list(_run(name))
    place = len(run) // 2
    run[place] = (run[place][0], run[-1][1])
    assert _found(run, name, tmp_path) == [("equal", [_step(run, place), _step(run, -1)])]


@pytest.mark.parametrize("name", SERIES)
def test_a_step_that_is_the_rounding_of_another(name: str, tmp_path: Path) -> None:
    run = list(_run(name))
    place = len(run) // 2
    before = run[place - 1][1]
    run[place] = (run[place][0], {key: one.bfloat16().to(one.dtype) for key, one in before.items()})
    assert _found(run, name, tmp_path) == [
        ("near-equal", [_step(run, place - 1), _step(run, place)])
    ]


@pytest.mark.parametrize("name", LONG)
def test_a_step_that_hardly_moved(name: str, tmp_path: Path) -> None:
    run = list(_run(name))
    place, draws = len(run) // 2, torch.Generator().manual_seed(1)
    run[place] = (run[place][0], {
        key: one * (1 + 1e-6 * torch.randn(one.shape, generator=draws))
        for key, one in run[place - 1][1].items()
    })  # fmt: skip
    assert _found(run, name, tmp_path) == [
        ("near-equal", [_step(run, place - 1), _step(run, place)])
    ]


@pytest.mark.parametrize("source", ["last", "other"])
@pytest.mark.parametrize("shard", range(3))
def test_a_shard_of_another_step_or_training(source: str, shard: int, tmp_path: Path) -> None:
    run, other = list(_run("shards")), _run("shards", 1)
    place = len(run) // 2
    names = parts(list(run[0][1]), 3)[shard]
    from_ = run[-1][1] if source == "last" else other[place][1]
    run[place] = (run[place][0], {**run[place][1], **{name: from_[name] for name in names}})
    faults = checked(saved(run, tmp_path, shards=3)).faults
    assert [(fault.code, fault.steps) for fault in faults] == [
        ("foreign-shard", [_step(run, place)])
    ]
    assert f"model-{shard + 1:05d}-of-00003.safetensors" in faults[0].plain
    assert faults[0].tensors == names
    assert (_step(run, -1) in faults[0].plain) == (source == "last")


@pytest.mark.parametrize("place", range(1, 5))
@pytest.mark.parametrize("shard", range(3))
def test_a_shard_of_another_training_among_few_steps(
    shard: int, place: int, tmp_path: Path
) -> None:
    """Its neighbours, which have little else in common with the other steps, are not named."""
    run, other = list(bundled()), _run("bundled", 1)
    names = parts(list(run[0][1]), 3)[shard]
    run[place] = (run[place][0], {**run[place][1], **{key: other[place][1][key] for key in names}})
    faults = checked(saved(run, tmp_path, shards=3)).faults
    assert [(one.code, one.steps) for one in faults] == [("foreign-shard", [_step(run, place)])]
    assert faults[0].plain.startswith(f"model-{shard + 1:05d}-of-00003.safetensors")


@pytest.mark.parametrize("name", SERIES)
def test_an_initialisation_of_another_training(name: str, tmp_path: Path) -> None:
    run = list(_run(name))
    run[0] = (run[0][0], _run(name, 1)[0][1])
    assert _found(run, name, tmp_path) == [("foreign-initialisation", [_step(run, 0)])]


@pytest.mark.parametrize(
    ("name", "place"),
    [("shards", 8), ("adapter", 7), ("bundled", 1), ("bundled", 2), ("bundled", 3), ("bundled", 4)],
)
def test_a_step_of_another_training(name: str, place: int, tmp_path: Path) -> None:
    run = list(_run(name))
    run[place] = (run[place][0], _run(name, 1)[place][1])
    assert _found(run, name, tmp_path) == [("foreign-step", [_step(run, place)])]


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("apart", [1, 4])
def test_steps_that_are_exchanged(name: str, apart: int, tmp_path: Path) -> None:
    run = list(_run(name))
    place = len(run) // 2
    one, two = run[place], run[place + apart]
    run[place], run[place + apart] = (one[0], two[1]), (two[0], one[1])
    assert _found(run, name, tmp_path) == [
        ("wrong-order", [_step(run, place), _step(run, place + apart)])
    ]


@pytest.mark.parametrize(
    ("name", "place"), [("shards", 8), ("adapter", 7), ("bundled", 2), ("bundled", 3)]
)
def test_a_gap(name: str, place: int, tmp_path: Path) -> None:
    run = list(_run(name))
    before, after = _step(run, place - 1), _step(run, place + 1)
    del run[place]
    assert _found(run, name, tmp_path) == [("gap", [before, after])]


@pytest.mark.parametrize("name", SERIES)
def test_a_step_of_another_type(name: str, tmp_path: Path) -> None:
    run = list(_run(name))
    place = len(run) // 2
    run[place] = (run[place][0], {key: one.bfloat16() for key, one in run[place][1].items()})
    assert _found(run, name, tmp_path) == [("mixed-dtype", [_step(run, place)])]


@pytest.mark.parametrize("name", SERIES)
def test_a_step_that_is_cut_short(name: str, tmp_path: Path) -> None:
    run = _run(name)
    folder = saved(run, tmp_path, shards=SHARDS[name])
    name_ = _step(run, len(run) // 2)
    file = max((folder / name_).glob("*.safetensors"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    assert [(one.code, one.steps) for one in checked(folder).faults] == [("truncated", [name_])]


@pytest.mark.parametrize("name", SERIES)
def test_a_step_of_which_a_file_is_missing(name: str, tmp_path: Path) -> None:
    run = _run(name)
    folder = saved(run, tmp_path, shards=SHARDS[name])
    name_ = _step(run, len(run) // 2)
    max((folder / name_).glob("*.safetensors")).unlink()
    assert [(one.code, one.steps) for one in checked(folder).faults] == [("incomplete", [name_])]


@pytest.mark.parametrize("name", SERIES)
def test_a_step_that_is_being_written(name: str, tmp_path: Path) -> None:
    run = _run(name)
    folder = saved(run, tmp_path, shards=SHARDS[name])
    (folder / _step(run, -1)).rename(folder / f"tmp-{_step(run, -1)}")
    found = [(one.code, one.steps) for one in checked(folder).faults]
    assert found == [("being-written", [f"tmp-{_step(run, -1)}"])]


@pytest.mark.parametrize("place", [5, 9])
def test_a_training_that_began_anew_from_its_start(place: int, tmp_path: Path) -> None:
    run = list(_run("shards"))
    again = mlp(7, start=run[0][1])
    run[place:] = [(step, again[i + 1][1]) for i, (step, _) in enumerate(run[place:])]
    assert _found(run, "shards", tmp_path) == [("restart", [_step(run, place)])]


@pytest.mark.parametrize("name", SERIES)
def test_a_training_that_began_anew_from_another_start(name: str, tmp_path: Path) -> None:
    run, other = list(_run(name)), _run(name, 1)
    place = len(run) // 2
    run[place:] = [(step, other[i][1]) for i, (step, _) in enumerate(run[place:])]
    assert _found(run, name, tmp_path) == [("restart", [_step(run, place)])]


def test_a_training_that_went_back(tmp_path: Path) -> None:
    run = list(_run("shards"))
    again = mlp(7, start=run[6][1])
    run[10:] = [(step, again[i + 1][1]) for i, (step, _) in enumerate(run[10:])]
    faults = checked(saved(run, tmp_path)).faults
    assert [(one.code, one.steps) for one in faults] == [("rolled-back", [_step(run, 10)])]
    assert any(f"nearer to {_step(run, place)}," in faults[0].plain for place in (6, 7))


def _branch(run: Run, source: int, place: int) -> State:
    """A step as it could be if the training went on from another one: an equal change, mixed."""
    draws = torch.Generator().manual_seed(3)
    start, end = run[source][1], run[place][1]
    found = {}
    for key, one in start.items():
        change = (end[key].float() - one.float()).flatten()
        mixed = change[torch.randperm(one.numel(), generator=draws)].reshape(one.shape)
        found[key] = (one.float() + mixed).to(one.dtype)
    return found


@pytest.mark.parametrize(
    ("name", "source", "place", "code"),
    [
        ("adapter", 5, 9, "rolled-back"), ("adapter", 0, 7, "restart"),
        ("bundled", 2, 4, "rolled-back"),
        ("bundled", 0, 2, "restart"), ("bundled", 0, 3, "restart"),
    ],
)  # fmt: skip
def test_a_training_that_goes_on_from_an_earlier_step(
    name: str, source: int, place: int, code: str, tmp_path: Path
) -> None:
    run = list(_run(name))
    # What the last step of the bundled series adds to 400 is far more than to the step before it.
    after = {"adapter": 1, "bundled": 2 if code == "rolled-back" else 1}[name]
    run[place:] = [
        (step, _branch(_run(name), source, source + after + i))
        for i, (step, _) in enumerate(run[place:])
    ]
    assert _found(run, name, tmp_path) == [(code, [_step(run, place)])]


@pytest.mark.parametrize("name", SERIES)
def test_a_name_that_the_trainer_contradicts(name: str, tmp_path: Path) -> None:
    run = _run(name)
    folder = saved(run, tmp_path, shards=SHARDS[name])
    for step, _ in run:
        said = step if step != run[2][0] else step + 7
        state = {"global_step": said, "log_history": [{"step": s, "loss": 1 / (s + 1)} for s in
                 range(0, step, 10)]}  # fmt: skip
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    found = [(one.code, one.steps) for one in checked(folder).faults]
    assert found == [("wrong-number", [_step(run, 2)])]


def test_a_log_that_another_training_wrote(tmp_path: Path) -> None:
    run = _run("shards")
    folder = saved(run, tmp_path)
    for place, (step, _) in enumerate(run):
        loss = 1.0 if place < 8 else 2.0
        history = [{"step": s, "loss": 1.0 if s < 50 else loss} for s in range(10, step + 1, 10)]
        state = {"global_step": step, "log_history": history}
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    found = [(one.code, one.steps) for one in checked(folder).faults]
    assert found == [("rolled-back", [_step(run, 8)])]


def test_nan_is_named_and_the_rest_compared(tmp_path: Path) -> None:
    run = [(step, dict(state)) for step, state in _run("shards")]
    run[3][1]["2.weight"] = torch.full_like(run[3][1]["2.weight"], torch.nan)
    integrity = checked(saved(run, tmp_path))
    assert [(one.code, one.steps) for one in integrity.faults] == [("not-finite", [_step(run, 3)])]
    assert integrity.tensors_compared == 7
    assert any("1 of 8 tensors" in line for line in integrity.not_looked_at)


def test_a_step_with_other_tensors(tmp_path: Path) -> None:
    run = [(step, dict(state)) for step, state in _run("shards")]
    del run[4][1]["6.bias"]
    faults = checked(saved(run, tmp_path)).faults
    assert [(one.code, one.steps) for one in faults] == [("other-tensors", [_step(run, 4)])]
    assert "6.bias" in faults[0].plain


def test_frozen_tensors_are_no_fault(tmp_path: Path) -> None:
    run = [(step, dict(state)) for step, state in _run("shards")]
    for _, state in run:
        state["0.weight"] = run[0][1]["0.weight"]
    integrity = checked(saved(run, tmp_path, shards=3))
    assert integrity.faults == []
    assert integrity.frozen == ["0.weight"]


def test_less_than_one_per_cent_of_the_bytes_is_read(tmp_path: Path) -> None:
    from flagscope.series.places import places
    from flagscope.series.step import read_step

    for place in places([saved(bundled(), tmp_path)]):
        step = read_step(place)
        file = next(Path(place.source).glob("*.safetensors"))
        header = int.from_bytes(file.read_bytes()[:8], "little")
        assert 0 < step.bytes_read + header + 8 < file.stat().st_size / 100


def test_a_folder_without_checkpoints_is_an_error(tmp_path: Path) -> None:
    from flagscope.errors import MissingFileError
    from flagscope.series.places import places

    with pytest.raises(MissingFileError, match="no checkpoints"):
        places([tmp_path])
    shutil.rmtree(tmp_path)


def test_steps_that_are_all_equal_are_one_fault(tmp_path: Path) -> None:
    run = [(step, _run("shards")[0][1]) for step, _ in _run("shards")[:5]]
    faults = checked(saved(run, tmp_path)).faults
    assert [(one.code, len(one.steps)) for one in faults] == [("equal", 5)]


def test_a_step_of_another_model_leaves_the_others_compared(tmp_path: Path) -> None:
    run = list(_run("shards"))
    run[0] = (run[0][0], {"other.weight": torch.zeros(3, 3)})
    run[5], run[6] = (run[5][0], run[6][1]), (run[6][0], run[5][1])
    integrity = checked(saved(run, tmp_path))
    assert [(one.code, one.steps) for one in integrity.faults] == [
        ("other-tensors", [_step(run, 0)]),
        ("wrong-order", [_step(run, 5), _step(run, 6)]),
    ]
    assert integrity.tensors_compared == 8


def test_differences_that_float32_cannot_hold_are_seen(tmp_path: Path) -> None:
    start = {name: one.double() for name, one in _run("shards")[0][1].items()}
    run = [(10 * i, {name: one * (1 + i * 1e-12) for name, one in start.items()}) for i in range(6)]
    assert checked(saved(run, tmp_path)).faults == []


def test_names_without_a_number_come_last() -> None:
    from flagscope.series.places import places

    named = ["m-final.pt", "m-step20.pt", "m-step100.pt", "m-step3.pt"]
    assert [place.name for place in places(named)] == [
        "m-step3.pt", "m-step20.pt", "m-step100.pt", "m-final.pt"
    ]  # fmt: skip


def test_two_trainings_are_not_taken_for_one(tmp_path: Path) -> None:
    from flagscope.series.places import places, runs_of

    for name in ("a", "b"):
        saved(_run("shards")[:4], tmp_path / name)
    for sources in ([tmp_path / "a", tmp_path / "b"], [f"{tmp_path}/*/checkpoint-*"]):
        runs = runs_of(places(sources))
        assert {name: len(run) for name, run in runs.items()} == {"a": 4, "b": 4}
    assert len(places([tmp_path / "a", tmp_path / "a"])) == 4


@pytest.mark.parametrize(("place", "source"), [(2, -1), (2, 0)])
@pytest.mark.parametrize("shard", range(3))
def test_the_neighbours_of_a_copied_shard_are_not_foreign(
    shard: int, place: int, source: int, tmp_path: Path
) -> None:
    run = list(bundled())
    names = parts(list(run[0][1]), 3)[shard]
    copied = {name: run[source][1][name] for name in names}
    run[place] = (run[place][0], {**run[place][1], **copied})
    faults = checked(saved(run, tmp_path, shards=3)).faults
    assert [(one.code, one.steps) for one in faults] == [("foreign-shard", [_step(run, place)])]


def test_a_shard_that_two_first_steps_share_is_one_fault(tmp_path: Path) -> None:
    run = list(_run("shards"))
    names = parts(list(run[0][1]), 3)[0]
    run[1] = (run[1][0], {**run[1][1], **{name: run[0][1][name] for name in names}})
    faults = checked(saved(run, tmp_path, shards=3)).faults
    assert [(one.code, one.steps) for one in faults] == [("foreign-shard", [_step(run, 1)])]
    assert f"It may be {_step(run, 0)} that is wrong." in faults[0].evidence


def test_a_step_between_two_exchanged_ones_is_not_named(tmp_path: Path) -> None:
    run = list(_run("shards"))
    one, two = run[7], run[9]
    run[7], run[9] = (one[0], two[1]), (two[0], one[1])
    assert _found(run, "shards", tmp_path) == [("wrong-order", [_step(run, 7), _step(run, 9)])]


def test_a_step_of_another_type_hides_nothing(tmp_path: Path) -> None:
    run = list(_run("adapter"))
    run[7] = (run[7][0], {key: one.bfloat16() for key, one in run[6][1].items()})
    assert _found(run, "adapter", tmp_path) == [
        ("mixed-dtype", [_step(run, 7)]),
        ("near-equal", [_step(run, 6), _step(run, 7)]),
    ]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(range(5), 2)))
def test_of_few_steps_only_those_that_were_exchanged_are_named(
    one: int, other: int, tmp_path: Path
) -> None:
    run = list(bundled())
    a, b = run[one], run[other]
    run[one], run[other] = (a[0], b[1]), (b[0], a[1])
    faults = checked(saved(run, tmp_path)).faults
    # The last two lie far from all: nothing to see, as a line below the faults says.
    named = [(fault.code, fault.steps) for fault in faults]
    seen = (one, other) != (3, 4)
    assert named == ([("wrong-order", [_step(run, one), _step(run, other)])] if seen else [])


@pytest.mark.parametrize("turned", [False, True])
def test_neighbours_whose_order_does_not_show_are_said(turned: bool, tmp_path: Path) -> None:
    run = list(bundled())
    if turned:
        a, b = run[-2:]
        run[-2:] = [(a[0], b[1]), (b[0], a[1])]
    integrity = checked(saved(run, tmp_path))
    assert integrity.faults == []
    said = "Not known from distances: whether checkpoint-2000 and checkpoint-10000 are exchanged."
    assert integrity.not_looked_at[-1] == said


def test_a_series_in_reverse_is_named_where_a_start_shows(tmp_path: Path) -> None:
    for name in ("bundled", "adapter"):
        run = _run(name)
        backwards = [(run[i][0], run[-1 - i][1]) for i in range(len(run))]
        (fault,) = checked(saved(backwards, tmp_path / name)).faults
        assert fault.code == "wrong-order"
        assert {_step(run, 0), _step(run, -1)} <= set(fault.steps)


def test_exact_zeros_of_pruning_are_not_a_start(tmp_path: Path) -> None:
    run = list(_run("shards"))
    names = [name for name in run[0][1] if name.endswith("bias")]
    pruned = {name: torch.zeros_like(run[-1][1][name]) for name in names}
    run[-1] = (run[-1][0], {**run[-1][1], **pruned})
    assert checked(saved(run, tmp_path)).faults == []
    # One gain that is 1 in two steps, as of a training in bfloat16 that hardly moves it.
    run = [(step, {**state, "gain": torch.ones(48) + 0.1 * (step > 20)}) for step, state in run]
    run[5][1]["gain"] = torch.ones(48)
    assert checked(saved(run, tmp_path / "gain")).faults == []


@pytest.mark.parametrize(("first", "code"), [(0, "restart"), (1, "restart"), (4, "rolled-back")])
def test_steps_that_repeat_others_are_one_fault(first: int, code: str, tmp_path: Path) -> None:
    run = _run("shards")[:8]
    again = [(80 + 10 * i, state) for i, (_, state) in enumerate(run[first:])]
    faults = checked(saved([*run, *again], tmp_path)).faults
    assert [(one.code, one.steps) for one in faults] == [(code, ["checkpoint-80"])]


def test_a_gradient_that_overflowed_is_in_every_later_log(tmp_path: Path) -> None:
    run = _run("shards")
    folder = saved(run, tmp_path)
    for step, _ in run:
        history = [{"step": s, "grad_norm": math.nan} for s in range(10, step + 1, 10)]
        state = {"global_step": step, "log_history": history}
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    assert checked(folder).faults == []
