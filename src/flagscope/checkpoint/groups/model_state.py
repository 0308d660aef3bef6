"""Search for the model's state dict in a saved object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flagscope.checkpoint.groups.choice import (
    DEEPEST,
    choice,
    dense_entries,
    holds,
    is_dense,
    is_optimiser,
    is_other,
    part_name,
)
from flagscope.checkpoint.groups.parts import named_part
from flagscope.checkpoint.pickle.stored_tensor import StoredTensor
from flagscope.errors import FlagscopeError, InputError, SourceError
from flagscope.shortening import listed

_LISTED = 6
_listed = partial(listed, most=_LISTED, letters=60)
_MOST_GROUPS = 20


@dataclass(frozen=True)
class ModelState:
    """The model's tensors in a saved object.

    Attributes
    ----------
    state
        Tensors by name.
    group
        Which entry they were read from, "" for the object itself.
    notes
        What was read and what passed over, in words.
    """

    state: dict[str, Any]
    group: str
    notes: tuple[str, ...]


def model_state(
    saved: Mapping[Any, Any],
    *,
    source: str,
    error: type[FlagscopeError],
    tensors: str | None = None,
) -> ModelState:
    """The model's tensors in a saved object, and notes on what was passed over.

    At each level `groups.choice` says which entry to go down to, to a depth of four.

    Parameters
    ----------
    saved
        A state dict, or a training checkpoint around one.
    source
        What it came from, for the messages.
    error
        The error to raise.
    tensors
        The group to read: the keys that lead to it with dots between them, or the start that the
        names of its tensors share; several with commas between them.

    Raises
    ------
    error
        If there are no tensors, or tensors have no values (on the meta device).
    SourceError
        If several mappings hold tensors and none is known to be the model. In memory, `error`.
    InputError
        If there is no group `tensors`.

    Examples
    --------
    >>> import torch
    >>> state = {"w": torch.eye(2)}
    >>> found = model_state({"model": state, "epoch": 3}, source="file", error=InputError)
    >>> found.group, list(found.state)
    ('model', ['w'])
    """
    reader = _Reader(source, error)
    if tensors is None:
        state, paths = reader.descended(saved, ())
    else:
        state, paths = reader.named(saved, tensors)
    reader.require_values(state)
    return ModelState(state, ",".join(".".join(path) for path in paths if path), reader.notes())


class _Reader:
    """Goes down, and keeps what it passes."""

    def __init__(self, source: str, error: type[FlagscopeError]) -> None:
        self._source, self._error = source, error
        # The file is whole, only the choice is missing; of an argument, it is the argument.
        self._unclear = SourceError if issubclass(error, SourceError) else error
        self._notes: list[str] = []

    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def descended(
        self, level: Mapping[Any, Any], path: tuple[str, ...]
    ) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
        """The state dict below an entry, and the paths of the entries that it was read from."""
        others: list[str] = []
        passed: list[str] = []
        start = len(path)
        while len(path) - start < DEEPEST:
            if is_optimiser(level):
                raise self._nothing({".".join(path) or "an optimiser's state": level})
            chosen = choice(level)
            shown = [_dotted(path, key) for key in chosen.unclear]
            if shown:
                raise self._unclear(
                    f"{self._source} holds several groups of tensors: {_listed(shown)}.",
                    hint=f"say which to read: tensors={shown[0]!r} (--tensors {_quoted(shown[0])})"
                    "; several with commas between them are read as one model.",
                )
            others += [_dotted(path, key) for key in chosen.others]
            if not chosen.keys:
                break
            passed += [str(key) for key in level if key not in chosen.keys + chosen.others]
            if len(chosen.keys) > 1:
                return self._joined(level, path, chosen.keys, others)
            key = next(iter(chosen.keys))
            path, level = (*path, str(key)), level[key]
        state = dense_entries(level)
        if not state:
            raise self._nothing(level)
        self._tell(path, others, passed, [str(key) for key in level if key not in state])
        return state, [path]

    def _nothing(self, level: Mapping[Any, Any]) -> FlagscopeError:
        others = [str(key) for key, value in level.items() if is_other(key, value)
                  and holds(value, is_dense)]  # fmt: skip
        if others:
            return self._error(
                f"{self._source} holds no model's weights, only what a trainer keeps next to them: "
                f"{_listed(others)}.",
                hint="give the checkpoint that holds the model's weights.",
            )
        return self._error(
            f"{self._source} holds no dense tensors under names.",
            hint="give a checkpoint that holds a model's weights, such as module.state_dict().",
        )

    def _joined(
        self, level: Mapping[Any, Any], path: tuple[str, ...], keys: tuple[Any, ...],
        others: list[str],
    ) -> tuple[dict[str, Any], list[tuple[str, ...]]]:  # fmt: skip
        """Several groups as one model, each under its own name."""
        state, paths = {}, []
        names = [part_name(key) for key in keys]
        prefixes = names if len(set(names)) == len(names) else [str(key) for key in keys]
        before, self._notes = self._notes, []
        for prefix, key in zip(prefixes, keys, strict=True):
            part, under = self.descended(level[key], (*path, str(key)))
            state |= {f"{prefix}.{name}": tensor for name, tensor in part.items()}
            paths += under
        shown = [".".join(one) for one in paths]
        self._notes = [
            *before,
            f"read the entries {_listed(shown)} of {self._source} as parts of one model; "
            f"tensors={shown[0]!r} (--tensors {_quoted(shown[0])}) reads one of them",
        ]
        self._tell_others(others)
        return state, paths

    def named(
        self, saved: Mapping[Any, Any], tensors: str
    ) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
        """The group that the user named, or several of them."""
        found = _found(saved, tensors)
        names = [name.strip() for name in tensors.split(",") if name.strip()]
        if found is None and len(names) > 1:
            state, paths = {}, []
            for name in names:
                part, under = self.named(saved, name)
                prefix = part_name(name.rpartition(".")[2])
                state |= {f"{prefix}.{inner}": tensor for inner, tensor in part.items()}
                paths += under
            return state, paths
        if found is None:
            there = list(_group_names(saved))
            raise InputError(
                f"{self._source} holds no group of tensors {tensors!r}.",
                hint=f"those there are: {_listed(there, most=_MOST_GROUPS)}."
                if there
                else "it holds one state dict alone; leave the group out.",
            )
        path, level, prefix = found
        if prefix is None:
            return self.descended(level, path)
        state = dense_entries(level)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        part = named_part(shapes, prefix) or {}
        self._notes.append(
            f"read the {len(part)} tensors of {self._source} whose names start with {prefix!r}"
        )
        return {name: state[stored] for name, stored in part.items()}, [(*path, prefix)]

    def require_values(self, state: Mapping[str, Any]) -> None:
        meta = [key for key, tensor in state.items() if _is_meta(tensor)]
        if meta:
            raise self._error(
                f"{self._source} holds tensors on the meta device, which have no values: "
                f"{meta[0]!r}" + (f" and {len(meta) - 1} more." if meta[1:] else "."),
                hint="load the weights before taking or saving the state dict.",
            )

    def _tell(
        self, path: tuple[str, ...], others: list[str], passed: list[str], left: list[str]
    ) -> None:
        if path:
            self._notes.append(
                f"read the entry {'.'.join(path)} of {self._source}"
                + (f"; passed over next to it: {_listed(passed)}" if passed else "")
            )
        if left:
            self._notes.append(
                f"passed over {len(left)} entries that are not dense tensors: {_listed(left)}"
            )
        self._tell_others(others)

    def _tell_others(self, others: list[str]) -> None:
        if others:
            self._notes.append(
                f"{self._source} holds weights under {_listed(others)} as well, which are not "
                f"read; tensors={others[0]!r} (--tensors {_quoted(others[0])}) reads them instead"
            )


def _found(
    level: Mapping[Any, Any], name: str, path: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], Mapping[Any, Any], str | None] | None:
    """Location of a group: the keys to a mapping, the mapping, and a start of names in it."""
    for key, value in level.items():
        inner = isinstance(value, Mapping) and holds(value, is_dense, DEEPEST + 1)
        if inner and str(key) == name:
            return (*path, str(key)), value, None
    for key, value in level.items():
        if isinstance(value, Mapping) and name.startswith(f"{key}."):
            found = _found(value, name.removeprefix(f"{key}."), (*path, str(key)))
            if found is not None:
                return found
    shapes = {key: tuple(value.shape) for key, value in level.items() if is_dense(key, value)}
    if named_part(shapes, name):
        return path, level, name
    if not path:  # of a state dict that lies deeper
        chosen = choice(level)
        if len(chosen.keys) == 1:
            return _found(level[chosen.keys[0]], name, (str(chosen.keys[0]),))
    return None


def _group_names(saved: Mapping[Any, Any]) -> Iterator[str]:
    """Groups that may be named: entries to three levels, then starts of names in them."""
    levels: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), saved)]
    for path, level in levels:  # which grows meanwhile
        keys = [key for key, value in level.items() if isinstance(value, Mapping)
                and not is_other(key, value) and holds(value, is_dense)]  # fmt: skip
        for key in keys[:_MOST_GROUPS]:
            yield _dotted(path, key)
            if len(path) < 2 and len(levels) < _MOST_GROUPS:
                levels.append(((*path, str(key)), level[key]))
    for path, level in levels:
        starts = dict.fromkeys(key.partition(".")[0] for key, value in level.items()
                               if is_dense(key, value) and "." in key)  # fmt: skip
        for start in list(starts)[:_MOST_GROUPS]:
            yield _dotted(path, start)


def _is_meta(tensor: Any) -> bool:
    device = getattr(tensor, "device", None)
    if device is None:
        return isinstance(tensor, StoredTensor) and tensor.storage is None
    return device.type == "meta"


def _dotted(path: tuple[str, ...], key: Any) -> str:
    return ".".join((*path, str(key)))


def _quoted(name: str) -> str:
    return name if name.replace(".", "").replace("_", "").replace("-", "").isalnum() else repr(name)
