"""Several runs: starts and partings, exchanged steps; independent seeds have no fault."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file

import flagscope
from flagscope import SeriesReport
from flagscope.records.series_runs import RunRecord, RunRelation
from flagscope.report.series import relations_in_words
from flagscope.series.compared import compared
from flagscope.series.places import Place
from flagscope.series.side_by_side import side_by_side
from flagscope.series.step import Header, Step
from series.made import Run, adapters, mlp, saved


@cache
def _run(seed: int, steps: int = 8, optimizer: str = "adamw") -> Run:
    return mlp(seed, steps=steps, optimizer=optimizer)


def _tracked(folder: Path, **runs: Run) -> SeriesReport:
    for name, run in runs.items():
        saved(run, folder / name)
    return flagscope.track([folder / name for name in runs], verify=True)


def _shared(report: SeriesReport) -> tuple[dict[str, RunRecord], list[RunRelation]]:
    record = report.result.runs
    assert record is not None
    return {run.name: run for run in record.runs}, record.relations


def _faults(report: SeriesReport) -> list[tuple[str, list[str]]]:
    return [(fault.code, fault.steps) for fault in report.faults]


def _exchanged(one: Run, two: Run, places: list[int]) -> tuple[Run, Run]:
    """Both runs with the weights of some places exchanged."""
    first, second = list(one), list(two)
    for place in places:
        first[place], second[place] = (one[place][0], two[place][1]), (two[place][0], one[place][1])
    return first, second


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_seeds_that_share_nothing_are_sound_and_their_own(tmp_path: Path, optimizer: str) -> None:
    runs = {f"seed-{i}": _run(i, optimizer=optimizer) for i in range(5)}
    report = _tracked(tmp_path, **runs)
    assert report.faults == []
    found, relations = _shared(report)
    assert [(run.start_answer, run.start_of) for run in found.values()] == [("own", None)] * 5
    assert {run.start for run in found.values()} == {f"seed-{i}/checkpoint-0" for i in range(5)}
    assert len(relations) == 10
    assert {relation.answer for relation in relations} == {"no-common-origin"}
    for relation in relations:
        assert abs(relation.correlation or 0) < (relation.chance or 0)


def test_runs_that_part_say_where_and_copies_are_the_same(tmp_path: Path) -> None:
    trunk = _run(0)
    branch = [(step + 30, state) for step, state in mlp(9, start=trunk[3][1], steps=5)]
    other_order = mlp(7, start=trunk[0][1], steps=8)
    report = _tracked(
        tmp_path, trunk=trunk, branch=[*trunk[:3], *branch], copy=trunk, order=other_order
    )
    assert report.faults == []
    found = {
        (one.first, one.second): (one.answer, one.equal_until, one.differ_from)
        for one in _shared(report)[1]
    }
    assert found["trunk", "branch"] == ("parted", 30, 40)
    assert found["trunk", "copy"] == ("same", 70, None)
    assert found["trunk", "order"] == ("parted", 0, 10)


def test_runs_of_one_start_that_was_not_saved_have_a_common_origin(tmp_path: Path) -> None:
    start = _run(0)[0][1]
    report = _tracked(tmp_path, a=_run(0)[1:], b=mlp(7, start=start, steps=8)[1:], c=_run(3)[1:])
    answers = {(one.first, one.second): one.answer for one in _shared(report)[1]}
    assert answers["a", "b"] == "common-origin"
    assert answers["a", "c"] == answers["b", "c"] == "no-common-origin"


def test_steps_that_descend_from_the_start_of_another_run(tmp_path: Path) -> None:
    one, two = _exchanged(_run(0), _run(1), [0])
    report = _tracked(tmp_path, a=one, b=two, c=_run(2))
    crossed = [fault for fault in report.faults if fault.code == "of-another-run"]
    assert [fault.steps for fault in crossed] == [["a/checkpoint-0"], ["b/checkpoint-0"]]
    assert "descend from the start of b, not from a/checkpoint-0" in crossed[0].plain
    found, _ = _shared(report)
    assert [(run.start_answer, run.start_of) for run in found.values()] == [
        ("another-run", "b"), ("another-run", "a"), ("own", None)
    ]  # fmt: skip
    assert (found["a"].distance_ratio or 0) > 5
    assert found["a"].faults >= 1
    assert found["c"].faults == 0


def test_a_start_that_is_of_none_of_the_runs_is_not_assigned(tmp_path: Path) -> None:
    strange = [(0, _run(8)[0][1]), *_run(0)[1:]]
    found, _ = _shared(_tracked(tmp_path, a=strange, b=_run(1), c=_run(2)))
    assert [(run.start_answer, run.start_of) for run in found.values()] == [
        ("unknown", None), ("own", None), ("own", None)
    ]  # fmt: skip


@pytest.mark.parametrize("places", [[4], [6, 7], [1], [2, 3, 4, 5, 6, 7]])
def test_exchanged_steps_are_named_with_the_run_that_they_continue(
    tmp_path: Path, places: list[int]
) -> None:
    one, two = _exchanged(_run(0), _run(1), places)
    report = _tracked(tmp_path, a=one, b=two, c=_run(2))
    crossed = [fault for fault in report.faults if fault.code == "of-another-run"]
    assert [fault.steps for fault in crossed] == [
        [f"{run}/checkpoint-{10 * place}" for place in places] for run in "ab"
    ]
    assert (
        f"continue{'s' if len(places) == 1 else ''} from b, and not from the other"
        in crossed[0].plain
    )
    assert "times as far from the step before it in a as from that of b" in crossed[0].evidence


def test_a_run_that_is_ahead_on_the_same_way_is_not_another_run(tmp_path: Path) -> None:
    start = _run(0)[0][1]
    slow = mlp(0, start=start, steps=12, optimizer="sgd")
    ahead = [(10 * place, state) for place, (_, state) in enumerate(slow[::2])]
    assert _tracked(tmp_path, slow=slow[:6], ahead=ahead).faults == []


def test_exchanged_steps_of_runs_of_one_start(tmp_path: Path) -> None:
    start = _run(0)[0][1]
    one, two = _exchanged(_run(0), mlp(7, start=start, steps=8), [5])
    report = _tracked(tmp_path, a=one, b=two)
    crossed = [fault.steps for fault in report.faults if fault.code == "of-another-run"]
    assert crossed == [["a/checkpoint-50"], ["b/checkpoint-50"]]


def test_a_step_copied_from_another_run_is_named_and_seen_as_equal(tmp_path: Path) -> None:
    two = list(_run(1))
    two[5] = (50, _run(0)[5][1])
    report = _tracked(tmp_path, a=_run(0), b=two)
    assert ("of-another-run", ["b/checkpoint-50"]) in _faults(report)
    (relation,) = _shared(report)[1]
    assert relation.answer == "no-common-origin"
    assert relation.equal_later == [50]


def test_a_step_that_is_the_step_before_of_another_run(tmp_path: Path) -> None:
    two = list(_run(1))
    two[5] = (50, _run(0)[4][1])
    report = _tracked(tmp_path, a=_run(0), b=two)
    (fault,) = [fault for fault in report.faults if fault.code == "of-another-run"]
    assert fault.steps == ["b/checkpoint-50"]
    assert fault.evidence.startswith("checkpoint-50 holds the weights of the step before it in a")


def test_faults_of_a_run_are_named_with_it(tmp_path: Path) -> None:
    two = list(_run(1))
    two[5] = (50, two[3][1])
    assert _faults(_tracked(tmp_path, a=_run(0), b=two)) == [
        ("equal", ["b/checkpoint-30", "b/checkpoint-50"])
    ]


def test_runs_of_other_shapes_and_adapters(tmp_path: Path) -> None:
    report = _tracked(tmp_path / "one", a=_run(0), lora=[(step // 5, state) for step, state in
                                                        adapters(0, steps=8)])  # fmt: skip
    assert report.faults == []
    assert [one.answer for one in _shared(report)[1]] == ["not-compared"]
    both = _tracked(tmp_path / "two", a=adapters(0, steps=6), b=adapters(1, steps=6))
    found, relations = _shared(both)
    assert both.faults == []
    assert [one.answer for one in relations] == ["no-common-origin"]
    assert [run.start_answer for run in found.values()] == ["own", "own"]


def test_folders_without_a_number_in_common_are_one_training(tmp_path: Path) -> None:
    report = _tracked(tmp_path, early=_run(0)[:4], late=_run(0)[4:])
    assert report.result.runs is None
    assert report.steps["number"].tolist() == list(range(0, 80, 10))
    assert report.faults == []


def test_a_run_is_named_by_what_differs_in_its_path(tmp_path: Path) -> None:
    for seed in (0, 1):
        saved(_run(seed)[:4], tmp_path / f"seed-{seed}" / "out")
    report = flagscope.track(f"{tmp_path}/seed-*/out", verify=True)
    assert list(_shared(report)[0]) == ["seed-0", "seed-1"]
    assert load_file(report.result.steps[4].source + "/model.safetensors")["0.bias"].equal(
        _run(1)[0][1]["0.bias"]
    )


def test_motion_passes_over_steps_of_another_run_and_names_the_run(tmp_path: Path) -> None:
    one, two = _exchanged(_run(0), _run(1), [3, 4])
    report = flagscope.track([saved(one, tmp_path / "a"), saved(two, tmp_path / "b")])
    for run in "ab":
        steps = f"{run}/checkpoint-30 (of-another-run), {run}/checkpoint-40 (of-another-run)"
        assert f"Motions of maps pass over {steps}." in report.result.notes
    for motion in report.result.motion:
        assert [place for place, change in enumerate(motion.change) if change is None] == [0, 3, 4]


def test_a_run_in_the_folder_of_another_has_faults_of_its_own(tmp_path: Path) -> None:
    two = list(_run(1))
    two[5] = (50, _run(0)[5][1])
    runs = [saved(_run(0), tmp_path / "a"), saved(two, tmp_path / "a" / "b")]
    saved(_run(2), tmp_path / "c")
    report = flagscope.track([runs[1], f"{runs[0]}/checkpoint-*", tmp_path / "c"], verify=True)
    assert {name: run.faults for name, run in _shared(report)[0].items()} == {
        "a/b": 2, "a": 0, "c": 0
    }  # fmt: skip


def test_steps_that_are_equal_later_are_said_and_not_called_never_equal(tmp_path: Path) -> None:
    two = list(_run(1))
    two[5] = (50, _run(0)[5][1])
    report = _tracked(tmp_path, a=_run(0), b=two)
    record = report.result.runs
    assert record is not None
    assert list(relations_in_words(record))[1:] == [
        "a and b are equal at step 50, after they differed."
    ]


def test_what_is_equal_of_each_two_of_many_runs() -> None:
    """Steps that are equal by two or more, and missing, at random."""
    draws = np.random.default_rng(0)
    pool = [[draws.normal(size=32) for _ in range(2)] for _ in range(6)]
    runs: dict[str, dict[int, NDArray[np.float64]]] = {
        name: {
            n: pool[n][draws.integers(2)] if draws.random() < 0.8 else draws.normal(size=32)
            for n in range(6)
            if draws.random() < 0.8
        }
        for name in "abcdefgh"
    }
    shared = side_by_side(
        {name: compared([_step(name, n, w) for n, w in run.items()]) for name, run in runs.items()}
    )
    seen = Counter(one.answer for one in shared.relations)
    assert min(seen["parted"], seen["no-common-origin"]) > 5
    for one in shared.relations:
        first, second = runs[one.first], runs[one.second]
        same = {n: first[n] is second[n] for n in first if n in second}
        differ = min((n for n in same if not same[n]), default=6)
        until = [n for n in same if n < differ]
        assert (one.steps, one.differ_from) == (len(same), differ if differ < 6 else None)
        assert one.equal_until == (max(until) if until else None)
        assert one.equal_later == [n for n in same if same[n] and n > differ]
        assert one.answer == ("parted" if until else "no-common-origin")


def _step(run: str, number: int, values: NDArray[np.float64]) -> Step:
    place = Place(f"{run}/step-{number}", f"step-{number}", number=number)
    header = Header((8, 4), "F32", "model.safetensors")
    return Step(place, headers={"w": header}, values={"w": values})
