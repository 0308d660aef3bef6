"""Small networks and trainings for the tests of the monitor."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GPT = {
    "model_type": "gpt2", "vocab_size": 17, "n_layer": 2, "n_head": 2, "n_embd": 16,
    "n_positions": 8, "tie_word_embeddings": True,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip


def gpt() -> nn.Module:
    """A GPT-2 of transformers, in training mode, with dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**{**GPT, "attn_implementation": "eager"})).train()


def mlp(width: int = 24) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, 5),
    )  # fmt: skip


def mlp_loss(net: nn.Module, generator: torch.Generator) -> Tensor:
    x = torch.randn(16, 12, generator=generator)
    return nn.functional.cross_entropy(net(x), x[:, :5].argmax(1))


def train(
    net: nn.Module,
    steps: int,
    *,
    after: Callable[[int], Any] = lambda _: None,
    loss_of: Callable[[nn.Module, torch.Generator], Tensor] = mlp_loss,
    first: int = 1,
) -> tuple[list[float], torch.optim.Optimizer]:
    """Losses of so many steps of AdamW, and the optimiser; `after` is called after each."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss = loss_of(net, generator)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        after(step)
    return losses, optimizer


def seed_all() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)


def random_states() -> list[bytes]:
    """All random states of the process, as bytes."""
    kind, keys, *rest = np.random.get_state()
    return [
        torch.get_rng_state().numpy().tobytes(),
        repr((kind, np.asarray(keys).tobytes(), rest)).encode(),
        repr(random.getstate()).encode(),
    ]


def numbers(report: Any) -> dict[str, Any]:
    """A report's record without where it is from and what the run cost."""
    return report.result.model_dump(mode="json", exclude={"source", "run"})
