"""Parts of a task at once."""

import threading

import pytest
import torch

from flagscope.engine.run.side_by_side import side_by_side


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "parts", "share"), [(1, 3, 1), (4, 2, 2), (4, 3, 1), (3, 1, 3)]
)
def test_parts_share_the_threads_of_their_task(threads, parts, share):
    torch.set_num_threads(threads)
    found = side_by_side([lambda i=i: (i, torch.get_num_threads()) for i in range(parts)])
    assert found == [(i, share) for i in range(parts)]
    assert torch.get_num_threads() == threads


def test_parts_run_at_once():
    torch.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=20)
    side_by_side([meeting.wait] * 2)


def test_an_error_ends_it():
    torch.set_num_threads(2)

    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        side_by_side([fails, lambda: None, lambda: None])


def test_nothing_to_run():
    assert side_by_side([]) == []
