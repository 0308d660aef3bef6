"""The callback of the Hugging Face Trainer: measurements, silence, resumption."""

from __future__ import annotations

import json
import sys
from importlib import reload
from pathlib import Path
from typing import Any

import pytest
import torch

import flagscope
from flagscope.errors import MissingExtraError
from monitor.nets import gpt, numbers, seed_all

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainer


class Tokens(torch.utils.data.Dataset):
    """Sixteen windows of random tokens."""

    def __init__(self) -> None:
        self._tokens = torch.randint(0, 17, (16, 8), generator=torch.Generator().manual_seed(2))

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._tokens[index], "labels": self._tokens[index]}


def trainer(folder: Path, callbacks: list[Any], **more: Any) -> Any:
    seed_all()
    given = {"max_steps": 8, "save_steps": 4, **more}
    arguments = transformers.TrainingArguments(
        str(folder), per_device_train_batch_size=2, gradient_accumulation_steps=2,
        report_to=[], use_cpu=True, logging_steps=1, disable_tqdm=True, **given,
    )  # fmt: skip
    return transformers.Trainer(gpt(), arguments, train_dataset=Tokens(), callbacks=callbacks)


def test_a_trainer_is_watched_and_resumes(tmp_path):
    from flagscope.monitor.huggingface import AlignmentCallback

    callback = AlignmentCallback(every=2)
    watched = trainer(tmp_path / "watched", [callback])
    watched.train()
    plain = trainer(tmp_path / "plain", [])
    plain.train()
    losses = [
        [line["loss"] for line in one.state.log_history if "loss" in line]
        for one in (watched, plain)
    ]
    assert losses[0] == losses[1]
    states = [one.model.state_dict() for one in (watched, plain)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])

    assert callback.monitor is not None
    assert callback.monitor.latest is not None
    folder = tmp_path / "watched" / "flagscope"
    assert steps_in(folder) == [0, 2, 4, 6, 8]
    scanned = numbers(flagscope.scan(tmp_path / "watched" / "checkpoint-8"))
    measured = numbers(callback.monitor.latest.report)
    for part in ("pairs", "heads", "edges"):
        assert scanned[part] == measured[part]

    before = (folder / "step-000000006.json").read_text()
    again = AlignmentCallback(every=2)
    resumed = trainer(tmp_path / "watched", [again])
    resumed.train(resume_from_checkpoint=str(tmp_path / "watched" / "checkpoint-4"))
    assert steps_in(folder) == [0, 2, 4, 6, 8]
    lines = (folder / "rolled-back.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [6, 8]
    record = json.loads((folder / "step-000000006.json").read_text())["pairs"]
    assert record == json.loads(before)["pairs"]


def steps_in(folder: Path) -> list[int]:
    lines = (folder / "monitor.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_without_transformers_it_says_so(monkeypatch):
    from flagscope.monitor import huggingface

    with monkeypatch.context() as without:
        without.setitem(sys.modules, "transformers", None)
        reload(huggingface)
        with pytest.raises(MissingExtraError, match="transformers is not installed"):
            huggingface.AlignmentCallback()
    reload(huggingface)
