"""Text for training small language models, and two tasks that destroy its structure.

The default text is `pydoc_data.topics`, which every CPython ships for `help()`; it differs between
Python versions. Any text file can be used instead.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics as pydoc_topics
from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from flagscope.errors import CorruptFileError, InputError, MissingFileError

Task = Literal["real", "shuffled", "random"]
TASKS: tuple[Task, ...] = get_args(Task)

PYDOC = "pydoc_data.topics"
_HELD_OUT = (5, 10)  # every tenth section, from the sixth on
_FILE_SECTIONS = 80  # sections of a text file, about as many as there are topics
_SMALLEST = 1000  # fewest characters of each part; less is useless for training and tests


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as character numbers, split by sections.

    Attributes
    ----------
    source
        Source of the text.
    sha256, characters
        Digest and length of the whole text, before repeated paragraphs are dropped.
    vocabulary
        Token i is its i-th character.
    held_out
        Names of the held-out sections.
    train, validation
        Token numbers, int64.
    """

    source: str
    sha256: str
    characters: int
    vocabulary: str
    held_out: tuple[str, ...]
    train: Int[Tensor, " n"]
    validation: Int[Tensor, " m"]

    def unigram_entropy(self) -> float:
        """Entropy of the frequencies of the training characters, in nats per character."""
        counts = torch.bincount(self.train, minlength=len(self.vocabulary)).double()
        return float(torch.special.entr(counts / counts.sum()).sum())

    def unigram_loss(self) -> float:
        """Loss on held-out characters of the training frequencies (one added to each count)."""
        counts = torch.bincount(self.train, minlength=len(self.vocabulary)).double() + 1
        return float(-(counts / counts.sum()).log()[self.validation].mean())


def pydoc_corpus(*, held_out: Iterable[str] | None = None, vocabulary: str | None = None) -> Corpus:
    """The help text of this Python, split by topic.

    Parameters
    ----------
    held_out
        Names of the topics to hold out; by default every tenth in alphabetical order, from the
        sixth on. Names that this Python lacks are ignored.
    vocabulary
        Characters to number, if they should be those of an earlier training; other characters are
        left out of the text.

    Raises
    ------
    InputError
        If less than a page of text is left in either part.

    Examples
    --------
    >>> corpus = pydoc_corpus()
    >>> corpus.source, len(corpus.validation) > 10_000
    ('pydoc_data.topics', True)
    """
    topics = pydoc_topics.topics
    sections = [(name, topics[name]) for name in sorted(topics)]
    names = _every_tenth(sections) if held_out is None else set(held_out)
    return _split(PYDOC, sections, names, vocabulary)


def file_corpus(path: str | os.PathLike[str]) -> Corpus:
    """A text file in UTF-8, split at paragraphs into about 80 sections, of which every tenth is
    held out.

    Raises
    ------
    MissingFileError
        If there is no such file.
    CorruptFileError
        If it is not UTF-8.
    InputError
        If it is too short to split.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MissingFileError(
            f"cannot read {os.fspath(path)}: {error.strerror}",
            hint="give the path of a text file, or pydoc",
        ) from error
    except UnicodeDecodeError as error:
        raise CorruptFileError(
            f"{os.fspath(path)} is not text in UTF-8", hint="give a text file, or pydoc"
        ) from error
    sections: list[tuple[str, str]] = []
    paragraphs: list[str] = []
    for paragraph in _paragraphs(text):
        paragraphs.append(paragraph)
        if sum(map(len, paragraphs)) >= len(text) / _FILE_SECTIONS:
            sections.append((f"section {len(sections)}", "\n\n".join(paragraphs)))
            paragraphs = []
    if paragraphs:
        sections.append((f"section {len(sections)}", "\n\n".join(paragraphs)))
    return _split(Path(path).name, sections, _every_tenth(sections), None)


def _every_tenth(sections: list[tuple[str, str]]) -> set[str]:
    first, step = _HELD_OUT
    return {name for name, _ in sections[first::step]}


def _paragraphs(text: str) -> list[str]:
    return re.split(r"\n\s*\n", text)


def _split(
    source: str, sections: list[tuple[str, str]], held_out: set[str], vocabulary: str | None
) -> Corpus:
    """Split a text into training and held-out sections.

    Many topics repeat others word for word ("compound" contains "if", "for", "try", ...), which
    would leak held-out text into training; so a paragraph is kept only at its first occurrence, up
    to white space.
    """
    whole = "\n\n".join(text for _, text in sections)
    seen: set[str] = set()
    parts: dict[bool, list[str]] = {True: [], False: []}
    for name, text in sections:
        for paragraph in _paragraphs(text):
            key = " ".join(paragraph.split())
            if key and key not in seen:
                seen.add(key)
                parts[name in held_out].append(paragraph.strip("\n"))
    vocabulary = "".join(sorted(set(whole))) if vocabulary is None else vocabulary
    number = {character: index for index, character in enumerate(vocabulary)}
    texts = {is_held_out: "\n\n".join(paragraphs) for is_held_out, paragraphs in parts.items()}
    for is_held_out, text in texts.items():
        if len(text) < _SMALLEST:
            raise InputError(
                f"{source} leaves {len(text)} characters "
                f"{'held out' if is_held_out else 'to train on'}",
                hint="give a longer text with empty lines between its paragraphs",
            )

    def encode(text: str) -> Tensor:
        return torch.tensor([number[character] for character in text if character in number])

    return Corpus(
        source=source,
        sha256=hashlib.sha256(whole.encode()).hexdigest(),
        characters=len(whole),
        vocabulary=vocabulary,
        held_out=tuple(name for name, _ in sections if name in held_out),
        train=encode(texts[False]),
        validation=encode(texts[True]),
    )


Draw = Callable[[Tensor, Corpus, tuple[int, int], Generator], Tensor]


def _real(text: Tensor, _: Corpus, size: tuple[int, int], generator: Generator) -> Tensor:
    rows, width = size
    first = torch.randint(len(text) - width + 1, (rows, 1), generator=generator)
    return text[first + torch.arange(width)]


def _shuffled(text: Tensor, _: Corpus, size: tuple[int, int], generator: Generator) -> Tensor:
    return text[torch.randint(len(text), size, generator=generator)]


def _random(_: Tensor, corpus: Corpus, size: tuple[int, int], generator: Generator) -> Tensor:
    return torch.randint(len(corpus.vocabulary), size, generator=generator)


_DRAWS: dict[Task, Draw] = {"real": _real, "shuffled": _shuffled, "random": _random}


def windows(
    corpus: Corpus, task: Task, *, rows: int, width: int, generator: Generator
) -> Int[Tensor, "rows width"]:
    """A random batch of training text under a task.

    Parameters
    ----------
    corpus
        The text.
    task
        "real": consecutive characters. "shuffled": every character is drawn anew from the text, so
        that frequencies are preserved and order is destroyed, differently in every batch: only the
        frequencies can be learnt, and no fixed shuffle can be memorised. "random": every character
        of the vocabulary is equally likely, and nothing can be learnt.
    rows, width
        Size of the batch.
    generator
        Source of randomness.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> windows(pydoc_corpus(), "shuffled", rows=2, width=5, generator=generator).shape
    torch.Size([2, 5])
    """
    return _DRAWS[task](corpus.train, corpus, (rows, width), generator)


def held_out_text(corpus: Corpus, task: Task, *, seed: int = 0) -> Int[Tensor, " n"]:
    """Held-out text of a task: the held-out part itself, shuffled, or random of equal length."""
    if task == "real":
        return corpus.validation
    generator = torch.Generator().manual_seed(seed)
    return _DRAWS[task](corpus.validation, corpus, (1, len(corpus.validation)), generator)[0]


def corpus(source: str | None = None) -> Corpus:
    """The corpus given by `flagscope lab --data`: "pydoc" (default) or a file."""
    return pydoc_corpus() if source is None or source == "pydoc" else file_corpus(source)
