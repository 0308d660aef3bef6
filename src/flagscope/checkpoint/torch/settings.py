"""The settings that a training script saved next to the weights: plain values alone."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import SimpleNamespace
from typing import Any

from flagscope.checkpoint.pickle.arrays import numpy_number
from flagscope.checkpoint.pickle.records import Global, StandIn
from flagscope.checkpoint.torch.objects import attributes as stood_in
from flagscope.checkpoint.torch.objects import module_state, pairs_of

# Entries that hold them; where several do, what comes first here has the last word.
CONFIG_KEYS = (
    "model_args",
    "model_config",
    "model_cfg",
    "model_kwargs",
    "model_params",
    "model_hparams",
    "config",
    "cfg",
    "hyper_parameters",
    "hyperparameters",
    "hparams",
    "_hparams",
    "args",
    "arguments",
    "opt",
    "options",
    "settings",
)
# Sections that say nothing of the model.
_OF_TRAINING = re.compile(r"optim|sched|train|data|log|callback|loss|metric|token|augment|seed")
_OF_MODEL = re.compile(r"model|net|former|gpt|arch|attention|backbone")
_SECTIONS = 2
_DEEPEST = 6
_MOST = 5000
_LONGEST = 1000
_TRANSFORMERS = "transformers.models."
_NONE = object()


def stored_config(saved: Any) -> dict[str, Any] | None:
    """The settings in a saved object, None where there are none.

    Those of every usual entry (`hparams`, `config`, `args`, …) are put together. Numbers, texts,
    booleans, lists and mappings of them are kept, objects read by their attributes (Namespace,
    dataclasses, OmegaConf), and all else left out, as is what lies deeper than six levels or
    beyond five thousand values. What sections say (``{"model": {"n_head": 4}}``) counts as well.

    Parameters
    ----------
    saved
        A mapping or an object (`StandIn`); a state dict has no such entry.

    Examples
    --------
    >>> stored_config({"model": {}, "args": {"lr": 0.1, "seed": object()}, "config": {"heads": 4}})
    {'lr': 0.1, 'heads': 4}
    """
    entries = pairs_of(saved) or attributes(saved) or {}
    reader = _Reader()
    found: dict[str, Any] = {}
    for key in CONFIG_KEYS:
        settings = reader.settings(entries.get(key))
        if settings:
            found = settings | found
    if "model_type" in found or "transformers_version" in found:
        return found  # of a model whose parts have configs of their own
    return _with_sections(found) or None


def _with_sections(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of their sections, up to two levels down.

    What stands higher up goes first. Sections of the model go before others, and of several only
    what all of them say alike is known of the model.
    """
    found = dict(settings)
    level: list[Mapping[str, Any]] = [settings]
    for _ in range(_SECTIONS):
        inner = [(key, part) for one in level for key, part in one.items()
                 if isinstance(part, Mapping) and not _OF_TRAINING.search(key.lower())]  # fmt: skip
        level = [part for key, part in inner if key in CONFIG_KEYS or _OF_MODEL.search(key.lower())]
        level = level or [part for _, part in inner]
        if not level:
            break
        first, *others = level
        found |= {
            key: value for key, value in first.items()
            if key not in found and value is not None and not isinstance(value, Mapping)
            and all(other.get(key) == value for other in others)
        }  # fmt: skip
    return found


def config_below(saved: Any, group: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The settings at the levels that lead to a group, and the entries that they came from.

    What lies nearer to the weights has the last word. A name of a model type is kept only if
    transformers gave it: scripts use the key for names of their own.
    """
    found: dict[str, Any] = {}
    keys: list[str] = []
    level, rest = saved, group.partition(",")[0]
    for _ in range(_DEEPEST):
        found = found | (stored_config(level) or {})
        entries = pairs_of(level) or attributes(level) or {}
        keys += [key for key in CONFIG_KEYS if key in entries]
        key = next((key for key in entries if rest == key or rest.startswith(f"{key}.")), None)
        if key is None:
            break
        level, rest = entries[key], rest.removeprefix(key).removeprefix(".")
    if "transformers_version" not in found:
        found.pop("model_type", None)
    return found or None, keys


class _Reader:
    """Counts what it reads, so that no nesting or repetition makes it large."""

    def __init__(self) -> None:
        self._left = _MOST

    def settings(self, value: Any, depth: int = 0) -> dict[str, Any] | None:
        """A mapping or an object as a dict of plain values; None for what is neither."""
        pairs = pairs_of(value)
        if pairs is None:
            pairs = attributes(value)
        if pairs is None or depth > _DEEPEST or (depth and module_state(value) is not None):
            return None
        if "_content" in pairs and isinstance(value, StandIn):  # OmegaConf
            return self.settings(pairs["_content"], depth)
        found: dict[str, Any] = {}
        model_type = _model_type(value)
        if model_type is not None:
            found["model_type"] = model_type
        for key, inner in pairs.items():
            self._left -= 1
            if self._left <= 0:
                break
            if not isinstance(key, str) or len(key) > _LONGEST:
                continue
            plain = self._plain(inner, depth + 1)
            if plain is not _NONE:
                found[key] = plain
        return found if found or isinstance(value, Mapping) else None

    def _plain(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if abs(value) < 2**63 else _NONE
        if isinstance(value, float):
            return value if math.isfinite(value) else _NONE
        if isinstance(value, str):
            return value if len(value) <= _LONGEST else _NONE
        if depth > _DEEPEST:
            return _NONE
        if isinstance(value, (list, tuple)):
            parts = []
            for part in value:
                self._left -= 1
                if self._left <= 0:
                    return _NONE
                plain = self._plain(part, depth + 1)
                if plain is _NONE:  # a list with holes would be another list
                    return _NONE
                parts.append(plain)
            return parts
        if isinstance(value, StandIn):
            number = numpy_number(value)
            if number is not None:
                return number
            state = attributes(value)
            if state is not None and "_val" in state:  # a value of OmegaConf
                return self._plain(state["_val"], depth + 1)
            if state is not None and isinstance(state.get("_content"), list):
                return self._plain(state["_content"], depth + 1)
        settings = self.settings(value, depth + 1)
        return _NONE if settings is None else settings


def attributes(value: Any) -> Mapping[Any, Any] | None:
    """Attributes of what stands in for an object, or of an object in memory that holds settings."""
    if isinstance(value, (Namespace, SimpleNamespace)):
        return vars(value)
    if is_dataclass(value) and not isinstance(value, type):
        return getattr(value, "__dict__", None)
    return stood_in(value)


def _model_type(value: Any) -> str | None:
    """Model type in transformers of a model whose configuration object was pickled."""
    if not isinstance(value, StandIn) or not isinstance(value.what, Global):
        return None
    if not value.what.module.startswith(_TRANSFORMERS) or not value.what.name.endswith("Config"):
        return None
    return value.what.module.removeprefix(_TRANSFORMERS).partition(".")[0]
