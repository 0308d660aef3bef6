"""Unpickled objects as a reader of weights sees them: tensors by name, in dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flagscope.checkpoint.pickle.arrays import held_array
from flagscope.checkpoint.pickle.records import Global, PickleError, StandIn
from flagscope.checkpoint.pickle.stored_tensor import StoredTensor
from flagscope.checkpoint.pickle.tensors import old_tensor
from flagscope.checkpoint.torch.archive import TorchArchive

# More names than any network has. Modules that share their children may give any number.
_MOST_NAMES = 300_000
_MOST_CHARACTERS = 2**26
_DEEPEST = 200
_LONGEST_LIST = 64  # a checkpoint saved as a list of a few dicts
_PARAMETERS, _BUFFERS, _CHILDREN = "_parameters", "_buffers", "_modules"


def opened_up(saved: Any, *, script: TorchArchive | None = None) -> Any:
    """The object with its modules, mappings and objects as plain dicts, tensors as they are.

    A whole module becomes its state dict, under the names that `module.state_dict()` gives; an
    object of another class a dict of its attributes; a short list a dict under "0", "1", …. What
    is shared stays shared, so that the result is no larger than the object.

    Parameters
    ----------
    saved
        As `unpickled` gives it.
    script
        The archive, where it is a TorchScript program.

    Raises
    ------
    PickleError
        If modules that hold each other give more than 300,000 names, or are 200 deep.
    """
    return _Opener(script).opened(saved)


class _Opener:
    """One pass through an object; each part of it is looked at once."""

    def __init__(self, script: TorchArchive | None) -> None:
        self._script = script
        self._made: dict[int, Any] = {}
        self._pairs: dict[int, Mapping[Any, Any]] = {}
        self._left: list[tuple[dict[Any, Any], Mapping[Any, Any]]] = []
        self._names = self._characters = 0

    def opened(self, saved: Any) -> Any:
        """The object, opened up; iterative, since any depth may come."""
        top = self._meant(saved)
        while self._left:
            target, inner = self._left.pop()
            for key, value in inner.items():
                target[key] = self._meant(value)
        return top

    def _meant(self, value: Any) -> Any:
        if isinstance(value, (StoredTensor, str, bytes, int, float)) or value is None:
            return value
        if id(value) not in self._made:
            self._made[id(value)] = self._newly_meant(value)
        return self._made[id(value)]

    def _newly_meant(self, value: Any) -> Any:
        found = old_tensor(value) or held_array(value)
        if found is not None:
            return found
        if self._script is not None and isinstance(value, StandIn):
            if isinstance(value.state, dict):
                return self._script_module(value, self._script, "", {})
            return value
        module = module_state(value)
        if module is not None:
            return self._module(module, "", {})
        inner = _inner(value)
        if inner is None:
            return value
        target: dict[Any, Any] = {}
        self._left.append((target, inner))
        return target

    def _module(
        self, state: Mapping[Any, Any], prefix: str, found: dict[str, Any], depth: int = 0
    ) -> dict[str, Any]:
        """Tensors of a module under the names that `torch.nn.Module.state_dict` gives them."""
        passing = _texts(state.get("_non_persistent_buffers_set"))
        self._count(prefix, depth, len(passing))
        for kind in (_PARAMETERS, _BUFFERS):
            for key, tensor in self._once(state.get(kind)).items():
                self._count(prefix, depth)
                tensor = old_tensor(tensor) or tensor
                if isinstance(tensor, StoredTensor) and (kind != _BUFFERS or key not in passing):
                    found[f"{prefix}{key}"] = tensor
        for key, child in self._once(state.get(_CHILDREN)).items():
            inner = module_state(child)
            if inner is not None:
                self._module(inner, f"{prefix}{key}.", found, depth + 1)
        return found

    def _script_module(
        self,
        value: StandIn,
        script: TorchArchive,
        prefix: str,
        found: dict[str, Any],
        depth: int = 0,
    ) -> dict[str, Any]:
        """Parameters and buffers of a TorchScript module by name."""
        declared = script.attributes(value.what) if isinstance(value.what, Global) else None
        children = []
        for key, inner in value.state.items():
            self._count(prefix, depth)
            if isinstance(inner, StoredTensor) and (declared is None or key in declared):
                found[f"{prefix}{key}"] = inner
            elif isinstance(inner, StandIn) and isinstance(inner.state, dict):
                children.append((key, inner))
        for key, inner in children:
            self._script_module(inner, script, f"{prefix}{key}.", found, depth + 1)
        return found

    def _count(self, prefix: str, depth: int, more: int = 0) -> None:
        """Count a step from module to module or to a tensor, and the letters of its name."""
        self._names += 1 + more
        self._characters += len(prefix)
        if depth > _DEEPEST:
            raise PickleError("its modules hold each other, or lie deeper than those of a network")
        if self._names > _MOST_NAMES or self._characters > _MOST_CHARACTERS:
            raise PickleError("its modules have more names than those of any network")

    def _once(self, value: Any) -> Mapping[Any, Any]:
        """`pairs_of`, worked out once for each object."""
        if id(value) not in self._pairs:
            self._pairs[id(value)] = pairs_of(value) or {}
        return self._pairs[id(value)]


def attributes(value: Any) -> Mapping[Any, Any] | None:
    """Contents of an object's `__dict__`; None if it is not an object with one."""
    if not isinstance(value, StandIn):
        return None
    # With slots, the state is a pair of dicts.
    state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
    return state if isinstance(state, dict) else None


def pairs_of(value: Any) -> Mapping[Any, Any] | None:
    """The items of a mapping, or of what stands in for one; None if it is none."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, StandIn):
        return None
    if value.pairs is not None:
        return value.pairs
    first = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else None
    ordered = isinstance(value.what, Global) and value.what.name == "OrderedDict"
    # As Python 2 pickled it: of a list of pairs.
    if ordered and isinstance(first, list) and all(map(_is_pair, first)):
        return {pair[0] if isinstance(pair[0], str) else object(): pair[1] for pair in first}
    return None


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2


def module_state(value: Any) -> Mapping[Any, Any] | None:
    """The attributes of a module, None for what is none."""
    if not isinstance(value, StandIn):
        return None
    candidates: list[Any] = [attributes(value)]
    if isinstance(value.arguments, tuple) and value.arguments:
        candidates.append(value.arguments[0])  # torch.fx puts them into a call
    for state in candidates:
        if isinstance(state, dict) and {_PARAMETERS, _CHILDREN} <= state.keys():
            return state
    return None


def _inner(value: Any) -> Mapping[Any, Any] | None:
    """Parts of an object that may hold tensors."""
    pairs = pairs_of(value)
    if pairs is not None:
        return pairs
    if isinstance(value, (list, tuple)):
        if len(value) > _LONGEST_LIST:
            return None
        return {
            str(place): part
            for place, part in enumerate(value)
            if isinstance(part, (dict, list, tuple, StandIn))
        }
    return attributes(value)


def _texts(value: Any) -> frozenset[str]:
    """The texts of a set."""
    items = value.items if isinstance(value, StandIn) else value
    if not isinstance(items, (list, tuple)):
        return frozenset()
    return frozenset(item for item in items if isinstance(item, str))
