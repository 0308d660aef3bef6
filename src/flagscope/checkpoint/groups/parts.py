"""Parts of one flat list of names: those under a start, and moving averages of others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flagscope.checkpoint.groups.choice import AVERAGED, words
from flagscope.checkpoint.wrapper_prefixes import visible_names

Shapes = Mapping[str, tuple[int, ...]]
_MOST_STARTS = 64
_MOST_ORIGINALS = 8
_MOST_PIECES = 64


@dataclass(frozen=True)
class Twin:
    """A moving average that lies next to the weights that it is the average of.

    Attributes
    ----------
    start
        What its names begin with.
    of
        What the names of the weights begin with; "" if nothing.
    names
        Its names, and under which name each has its weight; none for counters next to them.
    """

    start: str
    of: str
    names: Mapping[str, str | None]


def named_part(shapes: Shapes, start: str) -> dict[str, str] | None:
    """Names below a start, cut there, and the names that they are stored under.

    A moving average whose names were changed gets those of the weights that it belongs to.

    Parameters
    ----------
    shapes
        Shapes of all tensors by name.
    start
        What the names of the part begin with, up to a dot.

    Examples
    --------
    >>> named_part({"g.a.w": (2, 2), "d.w": (3, 3)}, "g")
    {'a.w': 'g.a.w'}
    """
    seen = visible_names(shapes)
    prefix = start.rstrip(".") + "."
    for twin in averaged_twins({name: shapes[stored] for name, stored in seen.items()}):
        if twin.start == prefix:
            return {
                original.removeprefix(twin.of): seen[name]
                for name, original in twin.names.items()
                if original is not None
            }
    found = {
        name.removeprefix(prefix): stored
        for name, stored in seen.items()
        if name.startswith(prefix) and name != prefix
    }
    return found or None


def averaged_twins(shapes: Shapes) -> list[Twin]:
    """Moving averages among the names: parts called ema, swa, … all of whose weights exist twice.

    Parameters
    ----------
    shapes
        Shapes of all tensors by name.

    Examples
    --------
    >>> shapes = {"model.a.w": (2, 2), "ema_model.a.w": (2, 2), "ema_model.decay": ()}
    >>> [(twin.start, twin.of) for twin in averaged_twins(shapes)]
    [('ema_model.', 'model.')]
    """
    parts: dict[str, list[str]] = {}
    others: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        pieces = name.split(".", _MOST_PIECES)
        place = next((i for i, piece in enumerate(pieces[:-1]) if words(piece) & AVERAGED), None)
        if place is None:
            others[name] = shape
        else:
            parts.setdefault(".".join(pieces[: place + 1]) + ".", []).append(name)
    found = []
    for start, names in list(parts.items())[:_MOST_STARTS]:
        twin = _twin(start, names, shapes, others)
        if twin is not None:
            found.append(twin)
            continue
        # Averages that hold the model under a name of their own: ema.module., ema.ema_model.
        inner: dict[str, list[str]] = {}
        for name in names:
            piece, dot, _ = name.removeprefix(start).partition(".")
            inner.setdefault(f"{start}{piece}." if dot else start, []).append(name)
        counters = inner.pop(start, [])
        twins = [_twin(below, those, shapes, others) for below, those in
                 list(inner.items())[:_MOST_ORIGINALS]]  # fmt: skip
        if twins and all(twins) and all(_is_counter(shapes[name]) for name in counters):
            found += [twin for twin in twins if twin is not None]
            found.append(Twin(start, "", dict.fromkeys(counters)))
    return found


def _twin(start: str, names: Iterable[str], shapes: Shapes, others: Shapes) -> Twin | None:
    """The average under a start, if all its weights are found elsewhere under one start."""
    rests = {name: name.removeprefix(start) for name in names}
    weights = {name: rest for name, rest in rests.items() if not _is_counter(shapes[name])}
    if not any(len(shapes[name]) > 1 for name in weights):
        return None
    longest = max(weights, key=lambda name: len(weights[name]))
    for of in _starts(weights[longest], shapes[longest], others):
        # Averages kept as buffers of a module may have no dots in their names.
        plain = {_undotted(name.removeprefix(of)): name for name in others if name.startswith(of)}
        meant = {name: plain.get(_undotted(rest)) for name, rest in rests.items()}
        fits = all(
            (original := meant[name]) is not None and others[original] == shapes[name]
            for name in weights
        )
        if fits:
            return Twin(start, of, meant)
    return None


def _starts(rest: str, shape: tuple[int, ...], others: Shapes) -> list[str]:
    """Prefixes before a given ending in the names of tensors of its shape."""
    found: dict[str, None] = {}
    plain = _undotted(rest)
    for name, other in others.items():
        if other != shape or not _undotted(name).endswith(plain):
            continue
        pieces = name.split(".", _MOST_PIECES)
        for place in range(len(pieces)):
            if "".join(pieces[place:]) == plain:
                found[".".join(pieces[:place]) + "." if place else ""] = None
        if len(found) >= _MOST_ORIGINALS:
            break
    return list(found)


def _undotted(name: str) -> str:
    return name.replace(".", "")


def _is_counter(shape: tuple[int, ...]) -> bool:
    """Of a step or a decay: one number."""
    return shape in ((), (1,))
