"""Progress: a bar where somebody watches, nothing in scripts."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
import torch

import flagscope
from flagscope.api.progress import shown_progress
from flagscope.errors import InputError

NET = {f"{i}.weight": torch.randn(8, 8) for i in (0, 2, 4)}


def test_scripts_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    flagscope.scan(NET)
    flagscope.scan(NET, progress=False)
    flagscope.compare(NET, NET)
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_drawn_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    flagscope.scan(NET, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "3/3" in shown.err


def test_a_prompt_with_a_terminal_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with shown_progress(None) as step:
        assert step is None  # stderr is no terminal
    monkeypatch.setattr(sys, "stderr", Terminal())
    with shown_progress(None) as step:
        assert step is not None


def test_a_notebook_has_one_below_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    display = pytest.importorskip("IPython.display")
    shown: list[str] = []

    class Handle:
        def update(self, content: object) -> None:
            shown.append(content.data)  # pyright: ignore[reportAttributeAccessIssue]

    def displayed(content: object, *, display_id: bool) -> Handle:
        assert display_id
        return Handle()

    monkeypatch.setattr(display, "display", displayed)
    ipython = sys.modules["IPython"]
    monkeypatch.setattr(ipython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    with shown_progress(None) as step:
        assert step is not None
        step(1, 2, "<b>")
        step(2, 2, "last")
    assert "1 of 2 &lt;b&gt;" in shown[0]
    assert "2 of 2 last" in shown[1]
    assert shown[-1] == ""  # what is stored with the notebook holds no bar
    with shown_progress(False) as step:
        assert step is None


@pytest.mark.parametrize("wrong", [3, "yes"])
def test_anything_else_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="progress is of type") as caught:
        flagscope.scan(NET, progress=wrong)  # pyright: ignore[reportArgumentType]
    assert "True, False" in (caught.value.hint or "")
