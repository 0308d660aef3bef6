"""Routes through the residual stream: which kind of map writes, which reads, how far on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from flagscope.records import PairRecord, ScanResult
from flagscope.report.wording import SPACE_WORDS

# As in layer.2.mlp.down-layer.3.q, with the stack in front where there are several.
_NAME = re.compile(
    r"(?:[\w.]+\.)?layer\.(?P<start>\d+)\.(?P<writer>[\w.]+)"
    r"-(?:[\w.]+\.)?layer\.(?P<end>\d+)\.(?P<reader>[\w.]+)"
)


@dataclass(frozen=True)
class Route:
    """Route of a residual pair.

    Parameters
    ----------
    writer, reader
        Paths inside the layers, as in ``"mlp.down"`` and ``"q"``.
    distance
        Layers from the writer to the reader; 0 in the same one.
    """

    writer: str
    reader: str
    distance: int

    @property
    def blocks(self) -> str:
        """Kinds of the two sub-blocks, in words."""
        return f"{_block(self.writer)} to {_block(self.reader)}"


def route(pair: PairRecord) -> Route | None:
    """The route of a residual pair; None for other pairs, and where the name does not show it.

    Examples
    --------
    The pair ``layer.3.o-layer.4.q`` runs from ``o`` to ``q`` over a distance of 1.
    """
    return route_named(pair.name) if pair.kind == "residual" else None


def route_named(name: str) -> Route | None:
    """The route that the name of a residual pair shows.

    Examples
    --------
    >>> route_named("layer.3.o-layer.4.q")
    Route(writer='o', reader='q', distance=1)
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return Route(found["writer"], found["reader"], int(found["end"]) - int(found["start"]))


def _block(path: str) -> str:
    if path.startswith("cross."):
        return "cross-attention"
    return "MLP" if path.rpartition(".")[2] in ("up", "gate", "down", "fc1", "fc2") else "attention"


def writer_title(path: str) -> str:
    """Name of a writer in a heading.

    Examples
    --------
    >>> writer_title("o"), writer_title("mlp.down"), writer_title("cross.o")
    ('Attention output', 'MLP output', 'Cross-attention output')
    """
    title = f"{_block(path)} output"
    title = title[0].upper() + title[1:]
    known = path in ("o", "cross.o", "down", "mlp.down")
    return title if known else f"{title} ({path})"


def reader_title(path: str, distance: int) -> str:
    """Name of a reader in a legend.

    Examples
    --------
    >>> reader_title("q", 1), reader_title("mlp.up", 0), reader_title("mlp.up", 3)
    ('query', 'MLP up, same block', 'MLP up, 3 blocks on')
    """
    *before, role = path.split(".")
    word = SPACE_WORDS.get(role, f"MLP {role}" if before == ["mlp"] else path)
    if before == ["cross"]:
        word = f"cross {word}"
    if distance == 1:
        return word
    return f"{word}, same block" if distance == 0 else f"{word}, {distance} blocks on"


@dataclass(frozen=True)
class Writer:
    """All residual pairs of one stack whose writer is of one kind.

    Parameters
    ----------
    key, title
        As in ``"mlp.down"`` and ``"MLP output"``, with the stack in front where there are several.
    lines
        The pairs by reader and distance, each in order of the reader's layer.
    """

    key: str
    title: str
    lines: tuple[tuple[Route, tuple[PairRecord, ...]], ...]


def writers(result: ScanResult) -> list[Writer]:
    """The residual pairs of a result by what writes; those without a known route are left out."""
    known = [(pair, way) for pair in result.pairs if (way := route(pair)) is not None]
    several = len({pair.stack for pair, _ in known}) > 1
    grouped: dict[tuple[str, str], dict[Route, list[PairRecord]]] = {}
    for pair, way in known:
        key = (pair.stack if several else "", way.writer)
        grouped.setdefault(key, {}).setdefault(way, []).append(pair)
    return [_writer(key, lines) for key, lines in grouped.items()]


def _writer(key: tuple[str, str], lines: dict[Route, list[PairRecord]]) -> Writer:
    stack, path = key
    order = sorted(lines, key=lambda way: (way.distance, list(lines).index(way)))
    return Writer(
        key="/".join(part for part in key if part),
        title=" · ".join(part for part in (stack, writer_title(path)) if part),
        lines=tuple((way, _by_depth(lines[way])) for way in order),
    )


def _by_depth(pairs: Sequence[PairRecord]) -> tuple[PairRecord, ...]:
    return tuple(sorted(pairs, key=lambda pair: pair.layer or 0))
