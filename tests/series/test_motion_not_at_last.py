"""Maps that the last step lacks, or holds in another shape, say why they have no displacement."""

from __future__ import annotations

from pathlib import Path

import torch

import flagscope
from series.made import Run, mlp, saved

RUN: Run = mlp(2, steps=5)


def notes(run: Run, folder: Path) -> tuple[flagscope.SeriesReport, list[str]]:
    report = flagscope.track(saved(run, folder))
    return report, [note for note in report.result.notes if "displacement" in note]


def test_a_last_step_of_another_shape_is_said(tmp_path: Path) -> None:
    number, state = RUN[-1]
    wider = {**state, "6.weight": torch.cat([state["6.weight"]] * 2), "6.bias": torch.zeros(12)}
    report, said = notes([*RUN[:-1], (number, wider)], tmp_path)
    assert said == [
        "1 map has no displacement and no straightness: checkpoint-40, the last step that was "
        "followed, has no such map of that shape (6.weight)."
    ]
    shapes = {(one.name, one.shape): one for one in report.result.motion}
    before = shapes["6.weight", (6, 48)]
    assert (before.displacement, before.straightness) == (None, None)
    assert before.change[3] is not None
    assert shapes["4.weight", (48, 48)].displacement is not None


def test_a_last_step_with_nan_is_said(tmp_path: Path) -> None:
    number, state = RUN[-1]
    weight = state["2.weight"].clone()
    weight[0, 0] = torch.nan
    _, said = notes([*RUN[:-1], (number, {**state, "2.weight": weight})], tmp_path)
    assert said == [
        "1 map has no displacement and no straightness: in checkpoint-40, the last step that was "
        "followed, numbers are not finite, or beyond double precision (2.weight)."
    ]


def test_nothing_is_said_where_each_map_has_its_way(tmp_path: Path) -> None:
    # A map that is new at the last step has had no way yet.
    number, state = RUN[-1]
    more = {**state, "8.weight": torch.eye(6)}
    assert notes([*RUN[:-1], (number, more)], tmp_path)[1] == []
