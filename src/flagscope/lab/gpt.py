"""A small GPT-2 as a plain function of its weights.

The weights are a mapping with GPT-2's names and layouts, so `flagscope.scan` reads them like any
GPT-2, during a training and without a copy. The bundled model runs with this function too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional

from flagscope.errors import InputError

State = Mapping[str, Tensor]

# Standard deviation of GPT-2's initial weights.
_SPREAD = 0.02
_EPSILON = 1e-5
# PyTorch's names for the two kinds of GELU.
_APPROXIMATIONS = {"gelu": "none", "gelu_new": "tanh"}


@dataclass(frozen=True)
class GPTShape:
    """Sizes of a GPT-2 with tied embeddings; fields are named as in its config.json.

    Raises
    ------
    InputError
        If the heads do not divide the width, or the activation is neither "gelu" nor "gelu_new".
    """

    vocab_size: int
    n_layer: int = 3
    n_head: int = 4
    n_embd: int = 64
    n_positions: int = 64
    activation_function: str = "gelu"  # on CPUs three times as fast as GPT-2's "gelu_new"

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise InputError(
                f"{self.n_head} heads do not divide width {self.n_embd}",
                hint="choose n_embd as a multiple of n_head",
            )
        if self.activation_function not in _APPROXIMATIONS:
            raise InputError(
                f"there is no activation {self.activation_function!r} here",
                hint=f"choose one of {', '.join(_APPROXIMATIONS)}",
            )

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> GPTShape:
        """The shape in a config.json."""
        return cls(**{field.name: config[field.name] for field in fields(cls)})

    def config(self) -> dict[str, Any]:
        """Config for `flagscope.scan` and transformers."""
        fixed = {
            "model_type": "gpt2",
            "layer_norm_epsilon": _EPSILON,
            "tie_word_embeddings": True,
        }
        return fixed | asdict(self)


def initial_state(shape: GPTShape, generator: Generator) -> dict[str, Tensor]:
    """Initial weights of GPT-2.

    Matrices and embeddings are N(0, 0.02²), and those that write to the stream are divided by
    √(2 n_layer); biases are 0, gains 1. Float32.

    References
    ----------
    Radford et al., Language Models are Unsupervised Multitask Learners (2019), section 2.3.

    Examples
    --------
    >>> state = initial_state(GPTShape(vocab_size=9, n_layer=1), torch.Generator().manual_seed(0))
    >>> state["transformer.h.0.attn.c_attn.weight"].shape
    torch.Size([64, 192])
    """
    d = shape.n_embd
    residual = _SPREAD / math.sqrt(2 * shape.n_layer)

    def normal(rows: int, columns: int, spread: float = _SPREAD) -> Tensor:
        return torch.randn(rows, columns, generator=generator) * spread

    state = {
        "transformer.wte.weight": normal(shape.vocab_size, d),
        "transformer.wpe.weight": normal(shape.n_positions, d),
    }
    for layer in range(shape.n_layer):
        maps = {
            "attn.c_attn": normal(d, 3 * d),
            "attn.c_proj": normal(d, d, residual),
            "mlp.c_fc": normal(d, 4 * d),
            "mlp.c_proj": normal(4 * d, d, residual),
        }
        block = f"transformer.h.{layer}."
        for name, weight in maps.items():
            state[f"{block}{name}.weight"] = weight
            state[f"{block}{name}.bias"] = torch.zeros(weight.shape[1])
        for name in ("ln_1", "ln_2"):
            state |= _norm(f"{block}{name}", d)
    return state | _norm("transformer.ln_f", d)


def _norm(name: str, d: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(d), f"{name}.bias": torch.zeros(d)}


def logits(
    state: State,
    tokens: Int[Tensor, "batch time"],
    shape: GPTShape,
    *,
    gates: Float[Tensor, "n_layer n_head"] | None = None,
) -> Float[Tensor, "batch time vocab"]:
    """Scores of the next token at every position.

    Parameters
    ----------
    state
        Weights under GPT-2's names.
    tokens
        Token numbers, at most n_positions per row.
    shape
        Sizes of the model.
    gates
        Factor on the output of each head, before the output map. A gate of 0 is equivalent to a
        zero W_O of that head; the derivative of the loss by the gates is the head importance of
        Michel et al.

    References
    ----------
    P. Michel, O. Levy, G. Neubig, Are Sixteen Heads Really Better than One?, NeurIPS 2019.

    Examples
    --------
    >>> shape = GPTShape(vocab_size=9)
    >>> state = initial_state(shape, torch.Generator().manual_seed(0))
    >>> logits(state, torch.tensor([[1, 2, 3]]), shape).shape
    torch.Size([1, 3, 9])
    """
    embedding = state["transformer.wte.weight"]
    x = functional.embedding(tokens, embedding)
    x = x + state["transformer.wpe.weight"][: tokens.shape[1]]
    kind = _APPROXIMATIONS[shape.activation_function]
    for layer in range(shape.n_layer):
        block = f"transformer.h.{layer}."
        gate = None if gates is None else gates[layer]
        x = x + _attention(state, block, _normalised(state, f"{block}ln_1", x), shape, gate)
        hidden = _linear(state, f"{block}mlp.c_fc", _normalised(state, f"{block}ln_2", x))
        x = x + _linear(state, f"{block}mlp.c_proj", functional.gelu(hidden, approximate=kind))
    return _normalised(state, "transformer.ln_f", x) @ embedding.mT


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    # GPT-2 stores its maps as (in, out).
    flat = torch.addmm(state[f"{name}.bias"], x.flatten(0, 1), state[f"{name}.weight"])
    return flat.unflatten(0, x.shape[:2])


def _normalised(state: State, name: str, x: Tensor) -> Tensor:
    gain, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return functional.layer_norm(x, gain.shape, gain, bias, _EPSILON)


def _attention(state: State, block: str, x: Tensor, shape: GPTShape, gate: Tensor | None) -> Tensor:
    by_head = _linear(state, f"{block}attn.c_attn", x).unflatten(-1, (3, shape.n_head, -1))
    q, k, v = by_head.permute(2, 0, 3, 1, 4)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    if gate is not None:
        mixed = mixed * gate[:, None, None]
    return _linear(state, f"{block}attn.c_proj", mixed.transpose(1, 2).flatten(2))


def mean_loss(
    state: State,
    text: Int[Tensor, " n"],
    shape: GPTShape,
    *,
    gates: Float[Tensor, "n_layer n_head"] | None = None,
    rows: int = 64,
) -> Tensor:
    """Mean loss in nats per token over consecutive windows of the model's context length.

    An incomplete last window is left out.

    Raises
    ------
    InputError
        If the text is shorter than one window.
    """
    width = shape.n_positions
    whole = (len(text) - 1) // width * width
    if not whole:
        raise InputError(
            f"a text of {len(text)} tokens fills no window of {width}", hint="give a longer text"
        )
    total = text.new_zeros((), dtype=torch.float64)
    windows = text[:whole].view(-1, width).split(rows)
    answers = text[1 : whole + 1].view(-1, width).split(rows)
    for window, answer in zip(windows, answers, strict=True):
        scores = logits(state, window, shape, gates=gates)
        loss = functional.cross_entropy(scores.flatten(0, 1), answer.flatten(), reduction="sum")
        total = total + loss.double()
    return total / whole
