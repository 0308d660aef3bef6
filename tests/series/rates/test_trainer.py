"""Schedules of Hugging Face's Trainer: from files that transformers itself writes."""

from __future__ import annotations

import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flagscope.errors import CorruptFileError, InputError, MissingFileError, UnsafeFileError
from flagscope.series.rates import (
    read_optimiser,
    read_training_arguments,
    schedule_from_optimisers,
    trainer_schedule,
)
from flagscope.series.trainer_state import trainer_state

transformers = pytest.importorskip("transformers")


def arguments(folder: Path, **settings):
    return transformers.TrainingArguments(
        output_dir=str(folder / "out"),
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **({"weight_decay": 0.1, "learning_rate": 0.02, "max_steps": 40} | settings),
    )


def written(folder: Path, made, way: str = "zip") -> Path:
    path = folder / "training_args.bin"
    if way == "bare":
        path.write_bytes(pickle.dumps(made))
    else:
        torch.save(made, path, _use_new_zipfile_serialization=way == "zip")
    return path


def state_file(folder: Path, logged: dict[int, float], **entries) -> Path:
    history = [{"step": step, "learning_rate": rate, "loss": 1.0} for step, rate in logged.items()]
    content = {"global_step": 40, "max_steps": 40, "log_history": [*history, {"eval_loss": 1.0}]}
    path = folder / "trainer_state.json"
    path.write_text(json.dumps(content | entries))
    return path


@pytest.mark.parametrize("way", ["zip", "legacy", "bare"])
def test_the_arguments_are_read_and_not_run(tmp_path, way):
    made = arguments(tmp_path, lr_scheduler_type="cosine", warmup_steps=4, adam_beta2=0.95)
    found = read_training_arguments(written(tmp_path, made, way))
    assert (found.weight_decay, found.learning_rate, found.max_steps) == (0.1, 0.02, 40)
    assert (found.adam_beta1, found.adam_beta2) == (0.9, 0.95)
    assert found.optim == made.optim.value
    assert found.lr_scheduler_type == "cosine"
    assert found.warmup(40) == made.get_warmup_steps(40) == 4
    assert found.num_train_epochs == 3.0
    assert found.values["per_device_train_batch_size"] == 8


def test_a_warm_up_given_as_a_share(tmp_path):
    made = arguments(tmp_path, warmup_steps=0.26)
    assert read_training_arguments(written(tmp_path, made)).warmup(40) == made.get_warmup_steps(40)


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_learning_rates_are_those_of_transformers(tmp_path, kind):
    found = read_training_arguments(
        written(tmp_path, arguments(tmp_path, lr_scheduler_type=kind, warmup_steps=7))
    )
    optimiser = torch.optim.AdamW([nn.Parameter(torch.ones(1))], lr=0.02)
    scheduler = transformers.get_scheduler(kind, optimiser, 7, 40)
    for update in range(40):
        expected = optimiser.param_groups[0]["lr"]
        assert found.learning_rate_of(update, 40) == pytest.approx(expected, rel=1e-12)
        optimiser.step()
        scheduler.step()


class Idle(nn.Module):
    """A model whose loss has no gradient, so that weights decay and do nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": 0 * self.map(x).sum() + 0 * labels.sum()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("optim", "kind"), [("adamw_torch", "cosine"), ("sgd", "cosine"), ("sgd", "inverse_sqrt")]
)
def test_a_real_training_decays_as_its_files_say(tmp_path, optim, kind):
    """Weights of a Trainer's own checkpoints against τ from what it wrote next to them."""
    made = arguments(
        tmp_path,
        optim=optim,
        lr_scheduler_type=kind,
        warmup_steps=6,
        logging_steps=3,
        save_steps=10,
    )
    model = Idle()
    start = model.map.weight.detach().clone()
    data = [{"x": torch.ones(3), "labels": torch.tensor(0)} for _ in range(8)]
    transformers.Trainer(model=model, args=made, train_dataset=data).train()
    folders = {n: tmp_path / f"out/checkpoint-{n}" for n in (10, 20, 30, 40)}
    from safetensors.torch import load_file

    fallen = [
        -2 * math.log(load_file(f / "model.safetensors")["map.weight"][0, 0] / start[0, 0])
        for f in folders.values()
    ]
    last = folders[40]
    schedule = trainer_schedule(last / "trainer_state.json", last / "training_args.bin")
    assert schedule.optimiser == ("sgd" if optim == "sgd" else "adamw")
    time = schedule.group("decayed").decay_time(list(folders))
    if kind == "cosine":
        np.testing.assert_allclose(time.value, fallen, rtol=1e-4)
        assert schedule.group("decayed").rates.exact
        assert not schedule.notes
    else:  # no formula here: from the log, with bounds
        assert ((time.low - 1e-6 <= fallen) & (fallen <= time.high + 1e-6)).all()
        assert "interpolated" in " ".join(schedule.notes)
    assert (schedule.group("undecayed").decay_time([40]).value == 0).all()
    saved = {n: read_optimiser(f / "optimizer.pt") for n, f in folders.items()}
    assert [group.decay for group in saved[40].groups] == [0.1, 0.0]
    assert [group.parameters for group in saved[40].groups] == [1, 1]
    by_file = schedule_from_optimisers(saved)
    assert by_file.optimiser == schedule.optimiser
    moved = by_file.only_decayed.decay_time(list(folders))
    assert (
        (np.diff(moved.low) <= np.diff(fallen)) & (np.diff(fallen) <= np.diff(moved.high))
    ).all()


def test_the_log_alone_says_nothing_of_decay(tmp_path):
    schedule = trainer_schedule(state_file(tmp_path, {10: 0.02, 40: 0.01}))
    assert schedule.optimiser is None
    assert schedule.group("decayed").decay is None
    assert "nothing of weight decay" in schedule.notes[0]
    given = trainer_schedule(tmp_path / "trainer_state.json", decay=0.1, optimiser="sgd").group(
        "decayed"
    )
    assert given.decay == 0.1


def test_a_log_that_contradicts_the_scheduler_is_believed(tmp_path):
    args = written(tmp_path, arguments(tmp_path, lr_scheduler_type="linear"))
    schedule = trainer_schedule(state_file(tmp_path, {10: 0.5, 40: 0.5}), args)
    assert "not those of the scheduler" in schedule.notes[0]
    assert schedule.group("decayed").rates.values[20] == pytest.approx(0.5)


def test_without_a_log_the_formula_counts_and_that_is_said(tmp_path):
    args = written(tmp_path, arguments(tmp_path))
    schedule = trainer_schedule(state_file(tmp_path, {}), args)
    assert "none was logged to compare" in schedule.notes[0]
    odd = written(tmp_path, arguments(tmp_path, lr_scheduler_type="polynomial"))
    with pytest.raises(InputError, match="no formula"):
        trainer_schedule(state_file(tmp_path, {}), odd)


def test_other_optimisers_have_no_decay_time(tmp_path):
    args = written(tmp_path, arguments(tmp_path, optim="adafactor"))
    schedule = trainer_schedule(state_file(tmp_path, {}), args)
    assert schedule.optimiser is None
    assert "adafactor" in schedule.notes[0]
    args = written(tmp_path, arguments(tmp_path, optim="sgd", optim_args="momentum=0.9"))
    assert trainer_schedule(state_file(tmp_path, {}), args).optimiser is None


def test_a_decay_that_contradicts_the_arguments_is_refused(tmp_path):
    args = written(tmp_path, arguments(tmp_path))
    with pytest.raises(InputError, match=r"0\.1, and 0\.2"):
        trainer_schedule(state_file(tmp_path, {}), args, decay=0.2)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trap-was-run",)


class Argued:
    """Stands in for training arguments with any content."""

    def __init__(self, **values) -> None:
        self.__dict__ = {"learning_rate": 0.1, "weight_decay": 0.1} | values


@pytest.mark.parametrize("way", ["zip", "legacy", "bare"])
def test_code_in_the_arguments_is_refused_and_not_run(tmp_path, way, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, {"learning_rate": 1.0, "weight_decay": Trap()}, way)
    for read in (read_training_arguments, read_optimiser):
        with pytest.raises(UnsafeFileError, match="mkdir"):
            read(path)
    assert not (tmp_path / "trap-was-run").exists()


@pytest.mark.parametrize("way", ["zip", "legacy", "bare"])
def test_files_cut_short_are_refused(tmp_path, way):
    path = written(tmp_path, arguments(tmp_path), way)
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        path.write_bytes(whole[:size])
        with pytest.raises((CorruptFileError, UnsafeFileError)):
            read_training_arguments(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "no training arguments"),
        ({"learning_rate": 0.1, "weight_decay": 0.1}, "no training arguments"),
        (Argued(weight_decay="a lot"), "weight_decay as 'a lot'"),
        (Argued(weight_decay=None), "weight_decay as 'None'"),
        (Argued(learning_rate=math.nan), "learning_rate as 'None'"),
        (Argued(learning_rate=True), "learning_rate as 'True'"),
        (Argued(weight_decay=-1.0), "negative"),
        (Argued(max_steps="9"), "max_steps"),
        (Argued(optim=3), "optim as '3'"),
    ],
)
def test_arguments_that_are_none_are_refused(tmp_path, content, words):
    with pytest.raises(CorruptFileError, match=words):
        read_training_arguments(written(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not a JSON object"),
        ("{}", "no log_history"),
        ('{"log_history": [{"step": 3, "learning_rate": "x"}]}', "'x'"),
        ('{"log_history": [{"step": 3, "learning_rate": NaN}]}', "nan"),
        ('{"log_history": [{"step": 3, "learning_rate": -1}]}', "-1"),
    ],
)
def test_states_that_are_none_are_refused(tmp_path, text, words):
    path = tmp_path / "trainer_state.json"
    path.write_text(text)
    with pytest.raises(CorruptFileError, match=words):
        trainer_schedule(path)


def test_a_step_beyond_any_training_fills_no_memory(tmp_path):
    path = state_file(tmp_path, {3: 0.1, 10**15: 0.1}, global_step=10**15)
    assert len(trainer_schedule(path).group("decayed").rates) == 3


def test_a_log_of_many_steps_is_read_and_a_file_larger_than_any_is_not(tmp_path):
    path = state_file(tmp_path, {3: 0.1})
    path.write_bytes(path.read_bytes() + b" " * 2**26)
    assert len(trainer_schedule(path).group("decayed").rates) == 40
    state = trainer_state(str(tmp_path / "model.safetensors"))
    assert state is not None
    assert state.steps == [3]
    with path.open("wb") as file:
        file.truncate(2**36)  # a hole: it takes no space
    for read in (trainer_schedule, lambda path: trainer_state(str(path.parent))):
        with pytest.raises(CorruptFileError, match=r"no trainer_state\.json has more than"):
            read(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"trainer_state\.json"):
        trainer_schedule(tmp_path / "trainer_state.json")
    with pytest.raises(MissingFileError, match=r"training_args\.bin"):
        read_training_arguments(tmp_path / "training_args.bin")
