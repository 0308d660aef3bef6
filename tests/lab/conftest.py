from pathlib import Path

import pytest

from flagscope.lab import registry

TOY = Path(__file__).with_name("toy_experiment.py")


@pytest.fixture
def toy() -> str:
    """A file that defines a small experiment."""
    return str(TOY)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BIASES", "JOURNAL", "HANGS", "FAILS", "NAN"):
        monkeypatch.delenv(f"TOY_{name}", raising=False)
    assert registry.experiment_names()
