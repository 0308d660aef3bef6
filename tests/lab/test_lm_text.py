"""Texts are split without leaks, and the destroyed tasks keep what they say they keep."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from flagscope.errors import CorruptFileError, InputError, MissingFileError
from flagscope.lab.text import corpus, file_corpus, held_out_text, pydoc_corpus, windows


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """400 paragraphs, of which every eighth is the one before again, with other white space."""
    lines = []
    for i in range(400):
        number = i - 1 if i % 8 == 7 else i
        space = "  " if i % 8 == 7 else " "
        lines.append(space.join(f"w{number}x{k}" for k in range(12)))
    path = tmp_path_factory.mktemp("text") / "planted.txt"
    path.write_text("\n\n".join(lines), encoding="utf-8")
    return path


def decoded(text, numbers):
    return "".join(text.vocabulary[i] for i in numbers.tolist())


def test_a_file_is_split_by_sections_without_repeats(planted):
    text = file_corpus(planted)
    train, held_out = decoded(text, text.train), decoded(text, text.validation)
    paragraphs = [*train.split("\n\n"), *held_out.split("\n\n")]
    assert len(paragraphs) == 350
    assert len({" ".join(one.split()) for one in paragraphs}) == 350
    assert not set(train.split()) & set(held_out.split())
    assert 0.05 < len(held_out) / len(train) < 0.2
    # Whole sections: the numbers of held-out paragraphs come in runs.
    numbers = [int(one.split("x")[0][1:]) for one in held_out.split("\n\n")]
    assert len(text.held_out) == sum(b - a > 2 for a, b in pairwise(numbers)) + 1


def test_the_source_names_the_text(planted):
    assert corpus().sha256 == corpus("pydoc").sha256 == pydoc_corpus().sha256
    assert corpus(str(planted)).source == "planted.txt"


def test_an_earlier_vocabulary_and_split_are_kept():
    now = pydoc_corpus()
    names = [*now.held_out[:4], "no such topic"]
    text = pydoc_corpus(held_out=names, vocabulary="abcdefgh ")
    assert text.held_out == now.held_out[:4]
    assert set(text.train.tolist()) == set(range(9))
    with pytest.raises(InputError, match="held out"):
        pydoc_corpus(held_out=["no such topic"])


def test_unigram_loss_of_a_text_like_its_training_is_the_entropy():
    text = pydoc_corpus()
    same = replace(text, validation=text.train)
    # Adding one to each count costs a little, and only then.
    assert 0 < same.unigram_loss() - text.unigram_entropy() < 1e-3


def test_real_windows_are_consecutive(planted):
    text = replace(file_corpus(planted), train=torch.arange(1000))
    drawn = windows(text, "real", rows=500, width=9, generator=generator())
    assert (drawn.diff(dim=1) == 1).all()
    assert drawn.min() == 0 or drawn.max() == 999  # the ends are reached
    assert drawn.max() <= 999


def test_shuffled_windows_keep_frequencies_and_lose_order(planted):
    text = replace(file_corpus(planted), train=torch.tensor([0, 0, 0, 1, 1, 1, 1, 2] * 50))
    drawn = windows(text, "shuffled", rows=400, width=50, generator=generator())
    n = drawn.numel()
    for token, p in ((0, 3 / 8), (1, 4 / 8), (2, 1 / 8)):
        assert abs((drawn == token).double().mean() - p) < 4 * (p * (1 - p) / n) ** 0.5
    # In the text a 0 follows a 2, always; after shuffling as often as anywhere.
    after = drawn[:, 1:][drawn[:, :-1] == 2]
    p = 3 / 8
    assert abs((after == 0).double().mean() - p) < 4 * (p * (1 - p) / len(after)) ** 0.5


def test_random_windows_are_uniform(planted):
    text = file_corpus(planted)
    size = len(text.vocabulary)
    drawn = windows(text, "random", rows=200, width=50, generator=generator())
    counts = torch.bincount(drawn.flatten(), minlength=size).double()
    # χ² with size - 1 degrees of freedom: mean size - 1, variance twice that.
    chi2 = float(((counts - 10_000 / size) ** 2 / (10_000 / size)).sum())
    assert abs(chi2 - (size - 1)) < 4 * (2 * (size - 1)) ** 0.5


def test_equal_generators_draw_equal_windows():
    text = pydoc_corpus()
    for task in ("real", "shuffled", "random"):
        one, other, third = (
            windows(text, task, rows=2, width=9, generator=generator(seed)) for seed in (3, 3, 4)
        )
        assert torch.equal(one, other)
        assert not torch.equal(one, third)
        assert len(held_out_text(text, task)) == len(text.validation)


def test_unreadable_texts_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="cannot read"):
        file_corpus(tmp_path / "nothing.txt")
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptFileError, match="UTF-8"):
        file_corpus(bad)
    bad.write_text("one paragraph " * 500)
    with pytest.raises(InputError, match="held out"):
        file_corpus(bad)
