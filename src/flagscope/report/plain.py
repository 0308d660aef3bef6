"""Plain sentences of findings about pairs of maps, for a reader who does not know the terms.

Each is true where the technical sentence next to it is, claims no more, has at most 25 words and
no symbol. Maps are called by what they do in a network, and pairs by what they are in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.records import PairRecord
from flagscope.report.tracks import Track
from flagscope.report.wording import begun, with_activation

# What pairs are in a network, and what their two maps are called.
_UNITS = {
    "qk": "heads",
    "ov": "heads",
    "mlp": "MLPs",
    "sequential": "pairs of layers",
    "conv": "convolution pairs",
    "residual": "connections",
    "latent": "pairs of maps",
}
_MAPS: dict[str, tuple[str, str]] = {
    "qk": ("the query map", "the key map"),
    "ov": ("the value map", "the output map"),
    "mlp": ("the first layer", "the second"),
    "sequential": ("one layer", "the next"),
    "conv": ("one convolution", "the next"),
    "residual": ("one block", "a later one"),
    "latent": ("the compression", "the expansion"),
}
_ALIGNED = {
    ("commutator_ratio", False): "what {0} writes lies along axes that {1} reads, beyond chance.",
    ("commutator_ratio", True): "strong directions of both are further from equal "
    "or perpendicular than by chance.",
    ("gram_correlation", True): "where {0} writes strongly, {1} tends to read strongly, beyond "
    "chance.",
    ("gram_correlation", False): "where {0} writes strongly, {1} tends to read weakly, beyond "
    "chance.",
}
# Queries and keys meet in a product: neither reads what the other writes.
_QUERY_KEY = {
    ("commutator_ratio", False): "{0} and {1} share their main axes, beyond chance.",
    ("gram_correlation", True): "where {0} is strong, {1} tends to be strong too, beyond chance.",
    ("gram_correlation", False): "where {0} is strong, {1} tends to be weak, beyond chance.",
}


def aligned(track: Track, some: Sequence[PairRecord], observable: str, *, above: bool) -> str:
    """Gram matrices that commute, clash or correlate."""
    key = (observable, above)
    kind = track.pairs[0].kind
    words = _QUERY_KEY.get(key, _ALIGNED[key]) if kind == "qk" else _ALIGNED[key]
    return _sentence(track, some, words)


def overlapping(track: Track, some: Sequence[PairRecord], *, above: bool) -> str:
    """Leading spaces that coincide, or avoid each other."""
    deed = "coincide" if above else "diverge"
    both = "of {0} and {1}" if track.pairs[0].kind == "qk" else "{0} writes and {1} reads"
    # At the sizes that the test chose: at others it can be the reverse.
    return _sentence(track, some, f"some leading directions {both} {deed} beyond chance.")


def lost(track: Track, some: Sequence[PairRecord]) -> str:
    """Directions that are written and not read at all."""
    words = "some directions {0} writes are not read by {1}, beyond what sizes force."
    return _sentence(track, some, words)


def met_exactly(track: Track, some: Sequence[PairRecord]) -> str:
    """Directions that are written and are exactly those that are read."""
    words = (
        "some written directions are exactly directions that are read, as far as stored numbers "
        "show."
    )
    return _sentence(track, some, words)


def uncertain(text: str) -> str:
    """A plain sentence of what is counted and not certain.

    Examples
    --------
    >>> uncertain("Heads keep apart.")
    'Heads keep apart (not certain).'
    """
    return f"{text[:-1]} (not certain)."


def _sentence(track: Track, some: Sequence[PairRecord], words: str) -> str:
    where = _where(track, some)
    place = track.title.rpartition(" · ")[0].replace(" · ", ", ")  # where there are several stacks
    text = begun(f"{where}{words.format(*_MAPS[track.pairs[0].kind])}")
    if with_activation(track.pairs[0]):  # two maps are compared, and nothing of what they enclose
        text = f"{text[:-1]} (activation left out)."
    return f"{place}: {text}" if place else text


def _where(track: Track, some: Sequence[PairRecord]) -> str:
    """Which of the pairs, as in ``"In 22 of 24 heads, "``; one alone by its name."""
    every = len(track.pairs)
    if every == 1:
        return f"In the one pair ({some[0].name}), "
    units = _UNITS[track.pairs[0].kind] if _distinct(track) else _UNITS["latent"]
    if len(some) == every:
        return f"In all {every:,} {units}, "
    name = f" ({some[0].name})" if len(some) == 1 else ""
    return f"In {len(some):,} of {every:,} {units}{name}, "


def _distinct(track: Track) -> bool:
    """Whether each pair is a head, or an MLP, of its own: none has two pairs, and all are known."""
    kind = track.pairs[0].kind
    if kind in ("sequential", "conv", "residual"):
        return True
    needed = "head" if kind in ("qk", "ov") else "layer"
    places = {(p.stack, p.attention, p.layer, p.head, p.expert) for p in track.pairs}
    known = all(getattr(pair, needed) is not None for pair in track.pairs)
    return known and len(places) == len(track.pairs)
