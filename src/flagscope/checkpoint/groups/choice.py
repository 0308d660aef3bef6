"""Choice of the group of tensors that is the model, by the names that scripts use."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.pickle.arrays import HeldArray
from flagscope.checkpoint.pickle.stored_tensor import StoredTensor

DEEPEST = 4
# Keys under which training scripts put the model, the usual ones first.
_USUAL = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights"),
    *("model_state", "model_dict", "model_weights", "model_params", "net_state_dict", "net_state"),
    *("network_state_dict", "params", "parameters"),
)
# Words that say of which kind an entry is, and not what it holds.
_GENERAL = frozenset((
    "state", "dict", "statedict", "model", "net", "network", "weights", "weight", "params",
    "parameters", "module", "ckpt", "checkpoint", "sd",
))  # fmt: skip
# Words of what lies next to a model in a training checkpoint, whole and as parts of words.
_OTHER = frozenset((
    "opt", "lr", "scaler", "rng", "random", "history", "hist", "args", "config", "cfg",
    "callback", "callbacks", "loop", "loops", "loss", "losses", "criterion", "metric", "metrics",
    "meter", "meters", "log", "logs", "logger", "stats", "statistics", "buffer", "replay", "amp",
    "grad", "grads", "gradient", "gradients", "momentum", "trainer", "sampler", "dataloader",
    "dataset", "normalizer", "normalization",
))  # fmt: skip
_OTHER_PARTS = ("optim", "sched", "hparam", "hyperparam", "hyper_param")
# Words of a moving average of weights, which repeat those of the model.
AVERAGED = frozenset((
    "ema", "swa", "averaged", "average", "avg", "shadow", "polyak",
))  # fmt: skip
# Parts of which one model is made; what is not a part of it, such as a discriminator, is not here.
_PARTS = frozenset((
    "encoder", "enc", "decoder", "dec", "embedding", "embeddings", "embed", "embedder",
    "backbone", "neck", "head", "heads", "trunk", "stem", "body", "classifier", "projector",
    "projection", "bottleneck", "quantizer", "quantize", "codebook", "feature", "features",
    "extractor", "transformer", "text", "visual", "vision", "image", "audio", "prior", "fc",
    "lm", "pooler",
))  # fmt: skip
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@dataclass(frozen=True)
class Choice:
    """What to read of a level.

    Attributes
    ----------
    keys
        Nothing to stay at the level, one key to go down, several to read as parts of one model.
    others
        Keys of what holds weights too and is passed over.
    unclear
        Keys between which no choice can be made; the rest is then empty.
    """

    keys: tuple[Any, ...] = ()
    others: tuple[Any, ...] = ()
    unclear: tuple[Any, ...] = ()


def words(name: Any) -> frozenset[str]:
    """The words of a name in lower case.

    Examples
    --------
    >>> sorted(words("netG_EMA.stateDict"))
    ['dict', 'ema', 'g', 'net', 'state']
    """
    return frozenset(word.lower() for word in _WORD.findall(str(name)))


def part_name(key: Any) -> str:
    """Name of a group without the words that say that it is one.

    Examples
    --------
    >>> part_name("encoder_state_dict"), part_name("model_state")
    ('encoder', 'model_state')
    """
    name = str(key)
    short = re.sub(r"_?(state_?dict|state|dict|weights|params|parameters)$", "", name)
    return short if short and not words(short) <= _GENERAL else name


def is_dense(key: Any, value: Any) -> bool:
    """Whether an entry is a tensor with all its elements, under a name."""
    if not isinstance(key, str):
        return False
    if isinstance(value, (StoredTensor, HeldArray)):
        return True
    return isinstance(value, Tensor) and value.layout == torch.strided


def dense_entries(level: Mapping[Any, Any]) -> dict[str, Any]:
    """The tensors at a level; NumPy arrays only where they are all that there is."""
    found = {key: value for key, value in level.items() if is_dense(key, value)}
    tensors = {key: value for key, value in found.items() if not isinstance(value, HeldArray)}
    return tensors or found


def is_matrix(key: Any, value: Any) -> bool:
    """Whether an entry is a tensor that could be a layer's weight."""
    return is_dense(key, value) and len(value.shape) > 1 and value.dtype != torch.bool


def holds(value: Any, test: Callable[[Any, Any], bool], depth: int = DEEPEST) -> bool:
    """Whether a mapping holds such an entry, at most `depth` levels down; each is met once."""
    level, met = [value], {id(value)}
    for _ in range(depth):
        below: list[Any] = []
        for mapping in level:
            if not isinstance(mapping, Mapping):
                continue
            for key, inner in mapping.items():
                if test(key, inner):
                    return True
                if id(inner) not in met:
                    met.add(id(inner))
                    below.append(inner)
        level = below
    return False


def is_other(key: Any, value: Any) -> bool:
    """Whether an entry is what a trainer keeps next to the model: an optimiser, a schedule, …"""
    if is_optimiser(value):
        return True
    name = str(key).lower()
    if any(part in name for part in _OTHER_PARTS):
        return True
    return bool(words(key) & _OTHER) and not words(key) & _PARTS


def choice(level: Mapping[Any, Any]) -> Choice:
    """What to read of a mapping that holds tensors, or groups of them.

    A group under one of the usual keys comes first; then tensors at this level; then the groups
    with matrices that are not an optimiser, schedule, … nor a moving average of another: the
    only one, or all of them if their names are those of parts of one model (encoder, decoder).
    """
    nested = [
        key for key, value in level.items() if isinstance(value, Mapping) and holds(value, is_dense)
    ]
    weights = [key for key in nested if not is_other(key, level[key])]
    usual = next((key for key in _USUAL if key in weights), None)
    matrices = [key for key in weights if holds(level[key], is_matrix)]
    if usual is not None and (usual in matrices or not matrices):
        return Choice((usual,), tuple(key for key in matrices if key != usual))
    if not nested:
        return Choice()
    direct = any(is_dense(key, value) for key, value in level.items())
    # A step, a generator's state or a mean next to groups of weights is not a state dict.
    # Nor is an array (a curve, a table) next to them, which a script does not keep weights in.
    heavy = any(
        is_matrix(key, value)
        and not is_other(key, None)
        and not (matrices and isinstance(value, HeldArray))
        for key, value in level.items()
    )
    if heavy or (direct and not matrices):
        return Choice((), tuple(matrices))
    found = matrices or weights or [key for key in nested if not is_optimiser(level[key])]
    found = [key for key in found if not words(key) & AVERAGED] or found
    others = tuple(key for key in matrices if key not in found)
    if len(found) > 1:
        if not all(words(key) <= _PARTS | _GENERAL and words(key) & _PARTS for key in found):
            return Choice(unclear=tuple(key for key in matrices or found))
        return Choice(tuple(found), others)
    return Choice(tuple(found), others)


def is_optimiser(value: Any) -> bool:
    """Whether a mapping is what every optimiser of PyTorch saves of itself."""
    return isinstance(value, Mapping) and "param_groups" in value and "state" in value
