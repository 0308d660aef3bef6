"""The callback of Lightning: against a stand-in, and the real Trainer where it is installed."""

from __future__ import annotations

import json
import sys
import types
from importlib import reload
from typing import Any

import pytest
import torch

import flagscope
from flagscope.errors import MissingExtraError
from flagscope.monitor import lightning as module
from monitor.nets import mlp, numbers, seed_all


@pytest.fixture
def callbacks(monkeypatch):
    """The module, with a base class in place of Lightning's where that is not installed."""
    package: Any = types.ModuleType("lightning.pytorch")
    package.Callback = type("Callback", (), {})
    with monkeypatch.context() as stand_in:
        stand_in.setitem(sys.modules, "lightning", types.ModuleType("lightning"))
        stand_in.setitem(sys.modules, "lightning.pytorch", package)
        yield reload(module)
    reload(module)


def test_steps_of_the_trainer_are_measured_and_resumed(callbacks, tmp_path):
    net = mlp()
    callback = callbacks.AlignmentCallback(every=2, only="health", out=tmp_path)
    trainer = types.SimpleNamespace(global_step=0)
    assert callback.state_dict() == {}
    callback.on_train_start(trainer, net)
    for batch in range(10):  # two batches to a step
        trainer.global_step = (batch + 1) // 2
        callback.on_train_batch_end(trainer, net, None, None, batch)
    state = json.loads(json.dumps(callback.state_dict()))
    callback.on_train_end(trainer, net)
    assert steps_in(tmp_path) == [0, 2, 4]

    again = callbacks.AlignmentCallback(every=2, only="health", out=tmp_path)
    again.load_state_dict(state)
    trainer.global_step = 5
    again.on_train_start(trainer, net)
    for step in (5, 6):
        trainer.global_step = step
        again.on_train_batch_end(trainer, net, None, None, 0)
    assert steps_in(tmp_path) == [0, 2, 4, 6]


def steps_in(folder: Any) -> list[int]:
    lines = (folder / "monitor.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_without_lightning_it_says_so(monkeypatch):
    with monkeypatch.context() as without:
        for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
            without.setitem(sys.modules, name, None)
        reload(module)
        with pytest.raises(MissingExtraError, match="lightning is not installed"):
            module.AlignmentCallback()
    reload(module)


@pytest.mark.filterwarnings("ignore")
def test_the_real_trainer(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    reload(module)

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            x = batch[0]
            return torch.nn.functional.cross_entropy(self.net(x), x[:, :5].argmax(1))

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    def fit(callbacks: list[Any], path: Any = None, steps: int = 6) -> Any:
        net = Net()
        seed_all()
        x = torch.randn(48, 12, generator=torch.Generator().manual_seed(1))
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=4)
        trainer = lightning.Trainer(
            max_steps=steps, accumulate_grad_batches=2, accelerator="cpu", logger=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
            enable_checkpointing=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(net, data, ckpt_path=path)
        return trainer, net

    callback = module.AlignmentCallback(every=2, out=tmp_path / "out")
    trainer, watched = fit([callback])
    _, plain = fit([])
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, watched.state_dict()[name])
    assert steps_in(tmp_path / "out") == [0, 2, 4, 6]
    trainer.save_checkpoint(tmp_path / "six.ckpt")
    assert callback.monitor is not None
    assert callback.monitor.latest is not None
    scanned = numbers(flagscope.scan(watched.state_dict()))
    assert numbers(callback.monitor.latest.report) == scanned
    again = module.AlignmentCallback(every=2, out=tmp_path / "out")
    fit([again], path=tmp_path / "six.ckpt", steps=10)
    assert steps_in(tmp_path / "out") == [0, 2, 4, 6, 8, 10]
