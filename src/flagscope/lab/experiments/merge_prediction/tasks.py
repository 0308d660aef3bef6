"""Eight tasks on one space of sequences: read six symbols, write six symbols.

A prompt token in front of the sequence names the task, as an instruction does, so that one network
can do all of them and the output map is shared. Three tasks move symbols, two replace each symbol
by another, three compare symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Generator, Tensor
from torch.nn import functional

from flagscope.lab.gpt import GPTShape, State, logits

SYMBOLS, LENGTH = 12, 6

TASKS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "reverse": lambda x: x.flip(1),
    "rotate": lambda x: x.roll(-2, 1),
    "swap": lambda x: x.unflatten(1, (-1, 2)).flip(2).flatten(1),
    "add": lambda x: (x + 3) % SYMBOLS,
    "complement": lambda x: SYMBOLS - 1 - x,
    "sort": lambda x: x.sort(1).values,
    "maximum": lambda x: x.cummax(1).values,
    "larger": lambda x: torch.maximum(x, x.roll(-1, 1)),
}
NAMES = tuple(TASKS)
PAIRS = tuple((i, j) for i in range(len(NAMES)) for j in range(i + 1, len(NAMES)))


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences with their answers.

    Attributes
    ----------
    tokens
        Prompt, sequence, and the answer without its last symbol.
    answers
        The answers.
    """

    tokens: Int[Tensor, "n time"]
    answers: Int[Tensor, "n length"]


def sequence_shape(width: int, layers: int, heads: int) -> GPTShape:
    """Shape of a GPT for these tasks: the symbols and a prompt token for each task."""
    return GPTShape(
        vocab_size=SYMBOLS + len(NAMES),
        n_layer=layers,
        n_head=heads,
        n_embd=width,
        n_positions=2 * LENGTH,
    )


def batch(tasks: Sequence[int], size: int, generator: Generator) -> Batch:
    """Uniform random sequences with the answers of these tasks, `size` for each.

    Examples
    --------
    >>> drawn = batch([0], 5, torch.Generator().manual_seed(0))
    >>> bool((drawn.tokens[:, 1:7].flip(1) == drawn.answers).all())
    True
    """
    tokens, answers = [], []
    for task in tasks:
        x = torch.randint(SYMBOLS, (size, LENGTH), generator=generator)
        y = TASKS[NAMES[task]](x)
        prompt = torch.full((size, 1), SYMBOLS + task)
        tokens.append(torch.cat([prompt, x, y[:, :-1]], dim=1))
        answers.append(y)
    return Batch(torch.cat(tokens), torch.cat(answers))


def loss(state: State, drawn: Batch, shape: GPTShape) -> Tensor:
    """Mean cross entropy of the answers' symbols, in nats, with the symbols before given."""
    scores = logits(state, drawn.tokens, shape)[:, LENGTH:]
    return functional.cross_entropy(scores.flatten(0, 1), drawn.answers.flatten())


@torch.no_grad()
def performance(state: State, drawn: Batch, shape: GPTShape) -> tuple[float, float]:
    """Share of the answers' symbols that are right, and the mean loss."""
    scores = logits(state, drawn.tokens, shape)[:, LENGTH:]
    right = (scores.argmax(-1) == drawn.answers).double().mean()
    entropy = functional.cross_entropy(scores.flatten(0, 1).double(), drawn.answers.flatten())
    return float(right), float(entropy)
