"""Connections between Keras layers, from the configuration that a file holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.graph.channels import Channels, Value
from flagscope.checkpoint.keras.layers import Layer
from flagscope.checkpoint.keras.rules import RULES, Site
from flagscope.wiring import Wiring

Key = tuple[str, int]
"""A layer's name, and which of its calls."""


def keras_wiring(model: Layer, tensors: Mapping[str, TensorInfo]) -> Wiring:
    """Order of the maps in a configuration.

    Parameters
    ----------
    model
        A Sequential or functional model.
    tensors
        The file's tensors by name.
    """
    channels = Channels()
    for value in _run(model, [], channels, tensors):
        channels.escape(value, None)
    return channels.wiring()


def _run(
    model: Layer,
    inputs: Sequence[Value | None],
    channels: Channels,
    tensors: Mapping[str, TensorInfo],
) -> list[Value | None]:
    """The values that a model gives for these inputs."""
    if model.kind == "Sequential":
        values = list(inputs)
        for layer in model.layers:
            if layer.kind != "InputLayer":
                values = [_called(layer, values, False, channels, tensors)]
        return values
    return _run_graph(model, inputs, channels, tensors)


def _run_graph(
    model: Layer,
    inputs: Sequence[Value | None],
    channels: Channels,
    tensors: Mapping[str, TensorInfo],
) -> list[Value | None]:
    by_name = {layer.name: layer for layer in model.layers}
    given = dict(zip((key for key, _ in _ends(model.config.get("input_layers"))), inputs,
                     strict=False))  # fmt: skip
    values: dict[Key, Value | None] = {}
    needs: dict[Key, list[tuple[Key, int]]] = {}
    for layer in model.layers:
        if not layer.inbound:
            values[layer.name, 0] = given.get((layer.name, 0))
        for number, node in enumerate(layer.inbound):
            needs[layer.name, number] = list(_sources(node))
    waiting: dict[Key, list[Key]] = {}
    open_: dict[Key, int] = {}
    ready: deque[Key] = deque()
    for key, sources in needs.items():
        missing = {source for source, _ in sources if source in needs}
        open_[key] = len(missing)
        for source in missing:
            waiting.setdefault(source, []).append(key)
        if not missing:
            ready.append(key)
    while ready:
        key = ready.popleft()
        taken = [values.get(source) if place == 0 else None for source, place in needs[key]]
        cross = len({source for source, _ in needs[key]}) > 1
        values[key] = _called(by_name[key[0]], taken, cross, channels, tensors)
        for later in waiting.get(key, ()):
            open_[later] -= 1
            if not open_[later]:
                ready.append(later)
    return [values.get(key) for key, _ in _ends(model.config.get("output_layers"))]


def _called(
    layer: Layer,
    inputs: Sequence[Value | None],
    cross: bool,
    channels: Channels,
    tensors: Mapping[str, TensorInfo],
) -> Value | None:
    """Output of a layer; where it is not understood, the channels end here."""
    if layer.layers:
        outputs = _run(layer, inputs, channels, tensors)
        return outputs[0] if len(outputs) == 1 else None
    site = Site(layer, channels, tensors, cross)
    rule = None if layer.own else RULES.get(layer.kind)
    understood, value = rule(site, inputs) if rule is not None else (False, None)
    if not understood:
        site.take_all()
        for one in inputs:
            channels.escape(one, layer.kind)
        return None
    return value


def _sources(node: Any) -> Iterator[tuple[Key, int]]:
    """Sources of the inputs of one call, in the older form and the newer."""
    if isinstance(node, Mapping):
        keywords = node.get("kwargs")
        kept = keywords.items() if isinstance(keywords, Mapping) else ()
        yield from _histories(node.get("args"))
        # Masks are not inputs in this sense.
        yield from _histories([value for key, value in kept if not str(key).endswith("mask")])
        return
    entries = node if isinstance(node, list) else []
    if len(entries) >= 3 and isinstance(entries[0], str):
        entries = [entries]
    for entry in entries:
        if isinstance(entry, list) and len(entry) >= 3 and isinstance(entry[0], str):
            key = _key(entry)
            if key is not None:
                yield key
            # What is given by keyword: ["keyword", {"value": ["dense", 0, 0]}].
            more = entry[3] if len(entry) > 3 and isinstance(entry[3], Mapping) else {}
            for value in more.values():
                key = _key(value) if isinstance(value, list) and len(value) == 3 else None
                if key is not None:
                    yield key


def _histories(entry: Any) -> Iterator[tuple[Key, int]]:
    """Placeholders for arrays in the arguments of a call, in order."""
    left = [entry]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            inner = one.get("config")
            if one.get("class_name") == "__keras_tensor__" and isinstance(inner, Mapping):
                key = _key(inner.get("keras_history"))
                if key is not None:
                    yield key
                continue
            left += list(one.values())[::-1]
        elif isinstance(one, list):
            left += one[::-1]


def _ends(entries: Any) -> list[tuple[Key, int]]:
    """Inputs or outputs of a model: one, or lists or names of them."""
    found, left = [], [entries]
    while left:
        one = left.pop()
        key = _key(one)
        if key is not None:
            found.append(key)
        elif isinstance(one, (list, Mapping)):
            left += list(one.values() if isinstance(one, Mapping) else one)[::-1]
    return found


def _key(entry: Any) -> tuple[Key, int] | None:
    fits = isinstance(entry, list) and len(entry) >= 3 and isinstance(entry[0], str)
    if not fits or not all(type(number) is int for number in entry[1:3]):
        return None
    return (entry[0], entry[1]), entry[2]
