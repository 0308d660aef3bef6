"""Groups of parameters with a λ of their own: from names in optimizer.pt, or given by names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import flagscope
from flagscope.errors import InputError
from flagscope.series.places import places
from flagscope.series.rates import (
    GroupSchedule,
    Schedule,
    given_schedule,
    known_rates,
    read_optimiser,
    schedule_from_optimisers,
)
from flagscope.series.rates.by_names import with_decays
from flagscope.series.schedules import checked_given, schedule_of
from flagscope.series.step import read_step
from series.made import RATES, Run, linear, saved

TWO = (0.02, 0.02, 0.01, 0.01)
BY_NAMES = {"[02].*": 0.02, "[46].*": 0.01}


def optimiser(
    groups: Mapping[float, Sequence[str]], *, rate: float = 0.1, prefix: str = ""
) -> torch.optim.SGD:
    """With named parameters, by λ."""
    made = [
        {"params": [(prefix + name, nn.Parameter(torch.ones(2))) for name in names],
         "weight_decay": decay}
        for decay, names in groups.items()
    ]  # fmt: skip
    return torch.optim.SGD(made, lr=rate)


def written(run: Run, folder: Path, groups: Mapping[float, Sequence[str]], schedule: str) -> Path:
    saved(run, folder)
    for number, _ in run:
        made = optimiser(groups, rate=RATES[schedule](number), prefix="net.")
        torch.save(made.state_dict(), folder / f"checkpoint-{number}" / "optimizer.pt")
    return folder


@pytest.mark.parametrize("schedule", ["constant", "warm-up", "cosine"])
def test_each_group_decays_in_its_own_time(schedule: str, tmp_path: Path) -> None:
    run = list(linear(schedule=schedule, decays=TWO))
    names = {0.02: ("0.weight", "2.weight"), 0.01: ("4.weight", "6.weight")}
    folder, store = written(run, tmp_path / "run", names, schedule), tmp_path / "store"
    by_file = flagscope.track(folder, store=store, kinds="sequential").rates
    given = flagscope.track(
        folder, store=store, kinds="sequential", learning_rate=RATES[schedule], optimiser="sgd",
        weight_decay=BY_NAMES,
    ).rates  # fmt: skip
    assert given["group"].tolist()[::2] == list(BY_NAMES)
    assert by_file["group"].tolist()[::2] == ["group 0", "group 1"]
    for found in (by_file, given):
        assert found["pair"].tolist() == ["0-2", "2-4", "4-6"]
        assert found["answer"].tolist() == ["rate", "mixed-decay", "rate"]
        rates = found["rate"].iloc[[0, 2]]
        assert (rates - 1).abs().max() < 0.02, rates


def test_names_in_a_file_are_read_as_pytorch_and_its_distributed_checkpoints_write_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "optimizer.pt"
    made = optimiser({0.02: ["0.weight"], 0.01: ["2.weight", "4.weight"]})
    torch.save(made.state_dict(), path)
    assert [one.names for one in read_optimiser(path).groups] == [
        ("0.weight",), ("2.weight", "4.weight")
    ]  # fmt: skip
    content = made.state_dict()
    for group in content["param_groups"]:
        group["params"] = group.pop("param_names")
    torch.save(content, path)
    assert read_optimiser(path).groups[1].names == ("2.weight", "4.weight")
    torch.save(torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1).state_dict(), path)
    assert read_optimiser(path).groups[0].names is None


def test_a_name_that_two_groups_share_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.pt"
    parts = {0.02: ["weight", "0.bias"], 0.01: ["weight", "1.bias"]}  # as of two modules
    torch.save(optimiser(parts).state_dict(), path)
    schedule = schedule_from_optimisers({0: read_optimiser(path)}, updates=9)
    assert schedule.named
    assert schedule.group_of("0.weight") is None
    assert schedule.group_of("0.bias") is schedule.groups[0]
    assert schedule.group_of("net.1.bias") is schedule.groups[1]


def test_a_map_of_no_group_has_no_rate(tmp_path: Path) -> None:
    folder = saved(list(linear()), tmp_path)
    found = flagscope.track(
        folder, learning_rate=0.1, optimiser="sgd", weight_decay={"[02].*": 0.02},
        kinds="sequential",
    ).rates  # fmt: skip
    assert found["answer"].tolist() == ["rate", "unknown-schedule"]
    assert "is not known" in found["reason"][1]


RATE = known_rates(0.1, updates=9)


@pytest.mark.parametrize(
    ("groups", "decays", "words"),
    [
        ((GroupSchedule("a", RATE, 0.1),), {"x": 0.2}, "no group of here has .* decay 0.2"),
        (
            (GroupSchedule("a", RATE, 0.1), GroupSchedule("b", known_rates(0.2, updates=9), 0.1)),
            {"x": 0.1},
            "several groups",
        ),
    ],
)
def test_a_decay_that_no_single_group_has_is_refused(
    groups: tuple[GroupSchedule, ...], decays: Mapping[str, float], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        with_decays(Schedule(groups, "sgd", source="here"), decays)


def test_a_group_of_unknown_decay_takes_what_is_given() -> None:
    groups = (GroupSchedule("decayed", RATE, None), GroupSchedule("undecayed", RATE, 0.0))
    found = with_decays(Schedule(groups, "sgd"), {"a.*": 0.1, "b.*": 0.2, "*": 0.0})
    own = [found.group_of(name) for name in ("a.0", "b.0", "c")]
    assert [None if group is None else group.decay for group in own] == [0.1, 0.2, 0.0]


def test_an_optimiser_of_another_decay_than_its_arguments_counts(tmp_path: Path) -> None:
    """As of a Trainer that was given an optimiser of its own."""
    transformers = pytest.importorskip("transformers")
    names = {0.02: ("0.weight", "2.weight"), 0.01: ("4.weight", "6.weight")}
    folder = written(list(linear(decays=TWO))[:4], tmp_path, names, "constant")
    made = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), use_cpu=True, report_to=[], optim="sgd",
        learning_rate=0.1, lr_scheduler_type="constant", max_steps=1200,
    )  # fmt: skip
    for path in folder.glob("checkpoint-*"):
        number = int(path.name.rpartition("-")[2])
        state = {"global_step": number, "max_steps": 1200, "log_history": []}
        (path / "trainer_state.json").write_text(json.dumps(state))
        torch.save(made, path / "training_args.bin")
    steps = [read_step(place) for place in places([folder])]
    schedule, _ = schedule_of(steps)
    assert schedule is not None
    assert schedule.source == "optimizer.pt"
    assert "gives the weight decay 0, the optimiser has 0.01, 0.02" in schedule.notes[-1]
    # That of the arguments themselves leaves the formula of their scheduler in place.
    for path in folder.glob("checkpoint-*"):
        torch.save(optimiser({0.0: ["0.weight"]}).state_dict(), path / "optimizer.pt")
    schedule, _ = schedule_of([read_step(place) for place in places([folder])])
    assert schedule is not None
    assert schedule.source == "trainer_state.json, training_args.bin"


@pytest.mark.parametrize("decay", [{}, {"a": -0.1}, -0.1, float("nan")])
def test_a_decay_that_is_none_is_refused(decay: dict[str, float] | float) -> None:
    with pytest.raises(InputError, match="weight_decay is"):
        checked_given(None, decay, None, 0.0)


def test_given_groups_are_those_of_the_names() -> None:
    schedule = with_decays(given_schedule(RATE, {"a": 0.1, "b": 0.1}), {"a": 0.1, "b": 0.1})
    assert [group.tensors for group in schedule.groups] == [("a",), ("b",)]
