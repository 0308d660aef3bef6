"""Series of small GPT-2s with random weights in which something is planted from a step on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from flagscope.lab.gpt import GPTShape, initial_state
from series.made import Run, State, saved

SHAPE = GPTShape(vocab_size=11, n_layer=2, n_head=4, n_embd=48, n_positions=8)
RANK = SHAPE.n_embd // SHAPE.n_head
CONFIG: dict[str, Any] = SHAPE.config()
Plant = Callable[[State, torch.Generator], None]


def gpts(
    seed: int, *, steps: int = 6, since: int = 3, plants: Sequence[Plant] = (), walk: float = 2e-3
) -> Run:
    """Small random steps from random weights; plants are put in from the step `since` on."""
    draws = torch.Generator().manual_seed(seed)
    state = initial_state(SHAPE, draws)
    run: Run = []
    for step in range(steps):
        shown = {name: one.clone() for name, one in state.items()}
        if step >= since:
            for plant in plants:
                plant(shown, draws)
        run.append((10 * step, shown))
        for name, one in state.items():
            state[name] = one + walk * torch.randn(one.shape, generator=draws)
    return run


def saved_gpts(run: Run, folder: Path) -> Path:
    """Folders of these, with the config of each."""
    saved(run, folder)
    for step, _ in run:
        (folder / f"checkpoint-{step}" / "config.json").write_text(json.dumps(CONFIG))
    return folder


def equal_keys(state: State, draws: torch.Generator) -> None:
    """Keys of head 2 of layer 1 span nearly the space of those of head 0, in another basis."""
    weight = state["transformer.h.1.attn.c_attn.weight"]
    keys = SHAPE.n_embd
    own = weight[:, keys : keys + RANK] @ torch.randn(RANK, RANK, generator=draws)
    noise = 0.1 * own.std() * torch.randn(own.shape, generator=draws)
    weight[:, keys + 2 * RANK : keys + 3 * RANK] = own + noise


def dead_neurons(state: State, _: torch.Generator) -> None:
    """Seven neurons of layer 0 whose outgoing weights are zero."""
    state["transformer.h.0.mlp.c_proj.weight"][5:12] = 0


def dead_head(state: State, _: torch.Generator) -> None:
    """Head 3 of layer 1 whose output weights are zero."""
    state["transformer.h.1.attn.c_proj.weight"][3 * RANK :] = 0
