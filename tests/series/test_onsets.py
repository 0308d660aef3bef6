"""From which step on a pair stands beyond chance or on a level, and stays until the end."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from flagscope.demo import checkpoints
from flagscope.diagnose import alignment_levels
from flagscope.geometry import RankRule
from flagscope.records import PairRecord
from flagscope.records.series import StepRecord
from flagscope.records.series_onsets import Onset
from flagscope.report.series.onsets import onset_in_words
from flagscope.series.onsets import LEVEL, onsets
from series.made import State


@cache
def _pair() -> PairRecord:
    report = flagscope.scan(checkpoints()[1], kinds="mlp", layers=0, edges=0, progress=False)
    return report.result.pairs[0]


def _steps(count: int) -> list[StepRecord]:
    return [
        StepRecord(name=f"step-{i}", source="", number=i, unit="step", tensors=1, bytes_total=0,
                   bytes_sampled=0)
        for i in range(count)
    ]  # fmt: skip


def _found(of: str, *changes: dict[str, object] | None) -> Onset:
    scans = [[] if one is None else [_pair().model_copy(update=one)] for one in changes]
    return next(one for one in onsets(_steps(len(scans)), scans) if one.of == of)


def _rho(value: float, p: float | None) -> dict[str, object]:
    return {"gram_correlation": value, "gram_correlation_p_familywise": p}


AT_CHANCE, ABOVE, BELOW = _rho(0.1, 0.4), _rho(0.5, LEVEL), _rho(-0.5, 0.01)


@pytest.mark.parametrize(
    ("changes", "answer", "after", "by"),
    [
        ([ABOVE, ABOVE], "from-the-first", None, "step-0"),
        ([AT_CHANCE, ABOVE, ABOVE], "between", "step-0", "step-1"),
        ([ABOVE, AT_CHANCE, ABOVE], "between", "step-1", "step-2"),
        ([ABOVE, ABOVE, AT_CHANCE], "not-at-last", None, None),
        ([AT_CHANCE, None, ABOVE], "between", "step-0", "step-2"),  # a step that was not measured
        ([AT_CHANCE, _rho(0.5, None), ABOVE, ABOVE], "between", "step-0", "step-2"),
        ([ABOVE, None], "from-the-first", None, "step-0"),
        ([BELOW, ABOVE, ABOVE], "between", "step-0", "step-1"),  # it crossed chance between them
        ([None, None, ABOVE], "from-the-first", None, "step-2"),
    ],
)
def test_an_onset_goes_back_from_the_end(
    changes: list[dict[str, object] | None], answer: str, after: str | None, by: str | None
) -> None:
    found = _found("gram_correlation", *changes)
    assert (found.answer, found.after, found.by) == (answer, after, by)
    assert found.side == (None if answer == "not-at-last" else "above")
    assert found.by_number == (None if by is None else int(by[-1]))


def test_what_no_step_has_is_not_tested_and_what_passes_is_counted() -> None:
    assert _found("gram_correlation", _rho(0.5, None)).answer == "not-tested"
    found = _found("gram_correlation", ABOVE, ABOVE, AT_CHANCE)
    assert (found.steps, found.steps_with, found.last) == (3, 2, None)


def _ranks(write: int, read: int, ratio: float | None, defect: float = 0.0) -> dict[str, object]:
    return {"effective_rank_write": write, "effective_rank_read": read, "overlap_ratio": ratio,
            "commutation_defect": defect, "cosines": None}  # fmt: skip


def test_levels_are_those_of_their_grades() -> None:
    d = _pair().d
    whole = _ranks(4, 4, d / 4)
    assert _found("rank", _ranks(2, 4, None), whole).by == "step-1"
    assert _found("subspace", _ranks(4, 4, 0.8 * d / 4), whole).by == "step-1"
    assert _found("subspace", _ranks(4, 4, 0.8 * d / 4)).last == pytest.approx(0.8)
    assert _found("subspace", _ranks(0, 4, None)).answer == "not-at-last"
    assert _found("subspace", _ranks(d, d, 1.0)).answer == "not-tested"  # dimensions alone give it
    # Blocks of singular directions are not compared: level 3 is excluded, or open.
    assert _found("basis", _ranks(4, 4, d / 4, 0.5)).answer == "not-at-last"
    assert (_found("basis", whole).answer, _found("basis", whole).last) == ("open", 1.0)
    lost = {**whole, "cosines": [1.0, 0.9, 0.5, 0.0]}
    assert _found("rank", lost).last == 0.75


@pytest.mark.parametrize("turn", [0.0, 0.5, 1.0])
def test_grades_are_those_of_the_levels_of_a_pair(turn: float, tmp_path: Path) -> None:
    draws = torch.Generator().manual_seed(3)
    write, noise, more = torch.randn(3, 40, 40, generator=draws, dtype=torch.float64)
    write = torch.linalg.qr(write)[0][:, :4]
    other = torch.linalg.qr(write + turn * noise[:, :4] / 40**0.5)[0]
    scale = torch.tensor([9.0, 8.0, 7.0, 6.0], dtype=torch.float64)
    w1, w2 = write * scale @ write.mT + 0.01 * noise, other * scale @ other.mT + 0.01 * more
    save_file({"0.weight": w1, "2.weight": w2}, tmp_path / "step-1.safetensors")
    scan = flagscope.scan(tmp_path / "step-1.safetensors", rank="fixed:4", edges=0)
    found = {one.of: one.last for one in onsets(_steps(1), [scan.result.pairs])}
    (exact,) = alignment_levels(w1[None], w2[None], rule=RankRule.parse("fixed:4"))
    assert found["rank"] == exact.rank
    assert found["subspace"] == pytest.approx(exact.subspace, abs=1e-6)
    assert exact.basis is not None
    assert found["basis"] is not None
    assert found["basis"] >= exact.basis - 1e-6


def _net(draws: torch.Generator) -> State:
    return {f"{2 * i}.weight": torch.randn(32, 32, generator=draws) for i in range(5)}


def test_random_steps_are_never_said_to_be_beyond_chance_and_aligned_ones_are(
    tmp_path: Path,
) -> None:
    claims = 0
    for seed in range(6):
        draws = torch.Generator().manual_seed(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for step in range(5):
            state = _net(draws)
            if step >= 3:  # the last map reads what the one before it writes
                state["8.weight"] = state["6.weight"].mT.contiguous()
            save_file(state, folder / f"step-{step}.safetensors")
        for one in flagscope.track(folder).result.onsets:
            if one.of not in ("overlap", "commutator_ratio", "gram_correlation"):
                continue
            if one.pair == "6-8":
                if one.of == "gram_correlation":
                    assert (one.answer, one.after, one.by) == (
                        "between", "step-2.safetensors", "step-3.safetensors"
                    )  # fmt: skip
            else:
                claims += one.answer != "not-at-last"
    # 54 onsets of six series: in each series one in 20 may be wrong.
    assert claims <= 2


def test_words_say_at_how_many_steps_it_was_and_at_which_it_could_be_seen() -> None:
    said = [
        onset_in_words(_found("gram_correlation", *changes))
        for changes in ([ABOVE, ABOVE, AT_CHANCE], [AT_CHANCE, AT_CHANCE], [None, ABOVE, ABOVE])
    ]
    assert [one.partition(": ")[2] for one in said] == [
        "at 2 of 3 steps, not at the last", "at no step", "from 1 on, the first step looked at"
    ]  # fmt: skip
