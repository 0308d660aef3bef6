"""Layers that a stack lacks, and tensors that a layer lacks, from names and config alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from flagscope.arch import Graph
from flagscope.engine.health.numbered import is_number, numbered
from flagscope.engine.plan.name_patterns import index_text, name_patterns
from flagscope.records import Missing

_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_LISTED, _LOOKED_FOR, _MOST_PARTS = 6, 12, 30
# Fewest layers of a stack in which one may be said to lack what the others have.
_FEWEST = 4
# Layers named one by one; a config or a name may state any number.
_MOST = 10_000

Layers = dict[int, set[str]]


def missing_parts(
    shapes: Mapping[str, tuple[int, ...]], graph: Graph, config: Mapping[str, Any] | None
) -> list[Missing]:
    """What is missing; certain where the layers are those of a known family.

    Parameters
    ----------
    shapes
        Shapes of the weights by name.
    graph
        The maps; it says which stack is that of the family.
    config
        The model's configuration.
    """
    known = _known_stacks(graph)
    found: list[Missing] = []
    for stack, layers in _stacks(shapes).items():
        certain = stack in known
        found += _gaps(stack, layers, certain=certain)
        if certain and len(known) == 1:
            found += _too_few(stack, layers, config, graph.notes)
        found += _lacking(stack, layers, certain=certain)
    return found


def missing_outside(graph: Graph, names: Collection[str]) -> tuple[list[str] | None, list[Missing]]:
    """Modules outside of the layers that were looked for, and those of which nothing is there.

    Parameters
    ----------
    graph
        It says what the family of the config holds outside of its layers.
    names
        All tensors of the checkpoint.

    Returns
    -------
    tuple of (list of str or None, list of Missing)
        None where it is not known what there should be.
    """
    if not graph.outside:
        return None, []
    # Every name in front of a dot, so that a module stored in any form counts as there.
    held = {*names}
    for name in names:
        parts = name.split(".")
        held.update(".".join(parts[:count]) for count in range(1, min(len(parts), _MOST_PARTS)))
    absent: dict[str, list[str]] = {}
    for outside in graph.outside:
        if held.isdisjoint(outside.modules):
            absent.setdefault(outside.said, []).append(outside.modules[0])
    found = [
        Missing(
            check="outside", stack="", layers="", count=len(modules),
            present=len(graph.outside) - sum(map(len, absent.values())),
            said=said, names=modules[:_LISTED], certain=True,
        )
        for said, modules in absent.items()
    ]  # fmt: skip
    return [outside.modules[0] for outside in graph.outside][:_LOOKED_FOR], found


def _stacks(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Layers]:
    """Names of matrices behind a number, by what stands before it and by the number."""
    return {
        stack: {
            number: {rest for rest, name in names.items() if sum(n > 1 for n in shapes[name]) > 1}
            for number, names in layers.items()
        }
        for stack, layers in numbered(shapes).items()
    }


def _known_stacks(graph: Graph) -> set[str]:
    """Stacks whose numbers are those of the layers of a known family."""
    from flagscope.arch import families

    if graph.reading is not None or graph.family not in {family.name for family in families()}:
        return set()
    agree: Counter[str] = Counter()
    differ: Counter[str] = Counter()
    for head in graph.heads:
        parts = head.map.tensor.split(".")
        at = next((i for i, part in enumerate(parts) if is_number(part)), None)
        if at is not None:
            stack = "".join(f"{part}." for part in parts[:at])
            (agree if int(parts[at]) == head.layer else differ)[stack] += 1
    return {stack for stack in agree if not differ[stack]}


def _gaps(stack: str, layers: Layers, *, certain: bool) -> Iterator[Missing]:
    """Numbers left out between the first and the last layer."""
    most = max(layers)
    absent = sorted({*range(min(most, _MOST))} - {*layers})
    # Modules without weights leave gaps in nn.Sequential: only layers of several matrices count.
    alike = Counter(frozenset(names) for names in layers.values()).most_common(1)[0]
    is_stack = len(alike[0]) > 2 and alike[1] > len(layers) // 2 and len(absent) < len(layers)
    if absent and (certain or is_stack):
        yield Missing(
            check="layers", stack=stack, layers=index_text(absent), count=len(absent),
            present=len(layers), certain=certain,
        )  # fmt: skip


def _too_few(
    stack: str, layers: Layers, config: Mapping[str, Any] | None, notes: Sequence[str]
) -> Iterator[Missing]:
    """Layers behind the last one, which the config says there are."""
    said = _stated_depth(config)
    # Layers that share their weights are fewer than the config says: the family knows of them.
    if (
        said is not None
        and any(note.startswith("the config says") and f"({said[0]})" in note for note in notes)
        and max(layers) + 1 < said[1] <= _MOST
    ):
        absent = range(max(layers) + 1, said[1])
        yield Missing(
            check="layers", stack=stack, layers=index_text(absent), count=len(absent),
            present=len(layers), said=f"{said[0]} = {said[1]}", certain=True,
        )  # fmt: skip


def _stated_depth(config: Mapping[str, Any] | None) -> tuple[str, int] | None:
    sections = [config, (config or {}).get("text_config")]
    for section in sections:
        for key in _KEYS:
            value = section.get(key) if isinstance(section, Mapping) else None
            if isinstance(value, int) and not isinstance(value, bool):
                return key, value
    return None


def _lacking(stack: str, layers: Layers, *, certain: bool) -> Iterator[Missing]:
    """Layers without a matrix that all others have, and without one of their own."""
    if len(layers) < _FEWEST:
        return
    counts = Counter(name for names in layers.values() for name in names)
    ends = (min(layers), max(layers))
    # What all but one layer have: the one that lacks it is the one that is looked for.
    common = {name for name, count in counts.items() if count == len(layers) - 1}
    lacks: dict[frozenset[str], list[int]] = {}
    for number, names in layers.items():
        own = {name for name in names if counts[name] == 1}
        absent = frozenset(common - names)
        if absent and names and not own:
            lacks.setdefault(absent, []).append(number)
    for absent, numbers in lacks.items():
        # The first and the last layer of a network differ from the others by design in some.
        yield _lack(stack, numbers, sorted(absent), len(layers),
                    certain=certain and not {*numbers} & {*ends})  # fmt: skip


def _lack(
    stack: str, numbers: Sequence[int], absent: Sequence[str], present: int, *, certain: bool
) -> Missing:
    names = [f"{stack}{number}.{name}" for number in numbers for name in absent]
    return Missing(
        check="tensors", stack=stack, layers=index_text(numbers), count=len(names),
        present=present, names=name_patterns(names, limit=_LISTED)[0], certain=certain,
    )  # fmt: skip
