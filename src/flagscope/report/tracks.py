"""Tracks: the pairs of one kind through the depth of the network, and where each stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flagscope.records import Freedom, HeadRecord, PairRecord, ScanResult
from flagscope.report.routes import route
from flagscope.report.wording import KIND_WORDS, SPACE_WORDS


@dataclass(frozen=True)
class Track:
    """Pairs of one kind, activation and stack, in the order of the scan.

    Parameters
    ----------
    key
        Identifies the track within the result, e.g. ``"qk/rope"``.
    title
        For headings, e.g. ``"Query–key (rope)"``.
    pairs
        The pairs, in the order of the result.
    positions
        Where each pair stands in depth: its layer, or its rank in the track where layers are not
        known.
    by_layer
        Whether ``positions`` are layers.
    """

    key: str
    title: str
    pairs: tuple[PairRecord, ...]
    positions: tuple[int, ...]
    by_layer: bool

    @property
    def freedom(self) -> Freedom:
        """The freedom that the pairs of this track have."""
        return self.pairs[0].freedom

    @property
    def depths(self) -> tuple[int, ...]:
        """The positions that occur, ascending."""
        return tuple(sorted(set(self.positions)))

    @property
    def several(self) -> bool:
        """Whether some position holds more than one pair (heads, experts)."""
        return len(self.pairs) > len(self.depths)


def tracks(result: ScanResult) -> list[Track]:
    """The tracks of a result, in order of first appearance.

    Residual pairs between sub-blocks are distinguished by their kinds: attention to MLP, ….

    Examples
    --------
    A result without pairs has no tracks; see `flagscope.scan` for one that has.
    """
    stacks = {pair.stack for pair in result.pairs}
    attentions = {pair.attention for pair in result.pairs if pair.attention}
    groups: dict[tuple[str, ...], list[PairRecord]] = {}
    for pair in result.pairs:
        stack = pair.stack if len(stacks) > 1 else ""
        attention = (pair.attention or "") if len(attentions) > 1 else ""
        way = route(pair)
        blocks = "" if way is None else way.blocks
        key = (stack, attention, pair.kind, pair.between, blocks, pair.freedom)
        groups.setdefault(key, []).append(pair)
    return [_track(key, pairs) for key, pairs in groups.items()]


def wider_tracks(result: ScanResult) -> list[Track]:
    """The tracks of a result, those through one residual stream taken together.

    A stream has up to a dozen routes; what is said of it in a sentence is said of all of them.
    """
    wide: dict[str, list[Track]] = {}
    for track in tracks(result):
        stream = route(track.pairs[0]) is not None
        stack = track.title.rpartition(" · ")[0]
        title = " · ".join(part for part in (stack, KIND_WORDS["residual"]) if part)
        wide.setdefault(title if stream else track.key, []).append(track)
    return [some[0] if len(some) == 1 else _joined(name, some) for name, some in wide.items()]


def _joined(title: str, some: Sequence[Track]) -> Track:
    return Track(
        key=some[0].key,
        title=title,
        pairs=tuple(pair for track in some for pair in track.pairs),
        positions=tuple(place for track in some for place in track.positions),
        by_layer=all(track.by_layer for track in some),
    )


def _track(key: tuple[str, ...], pairs: Sequence[PairRecord]) -> Track:
    stack, attention, kind, between, blocks, _ = key
    layers = [pair.layer for pair in pairs if pair.layer is not None]
    title = KIND_WORDS[kind]
    if blocks:
        title = f"Stream, {blocks}"
    elif between not in (kind, "linear"):
        title = f"{title} ({between})"
    return Track(
        key="/".join(part.replace(" ", "-") if part == blocks else part for part in key if part),
        title=" · ".join(part for part in (stack, attention, title) if part),
        pairs=tuple(pairs),
        positions=tuple(layers) if len(layers) == len(pairs) else tuple(range(len(pairs))),
        by_layer=len(layers) == len(pairs),
    )


@dataclass(frozen=True)
class HeadTrack:
    """The head groups of one space and stack, in order of layer."""

    key: str
    title: str
    space: str
    groups: tuple[HeadRecord, ...]


def head_tracks(result: ScanResult) -> list[HeadTrack]:
    """The head groups of a result by stack, attention and space, in order of appearance."""
    stacks = {group.stack for group in result.heads}
    attentions = {group.attention for group in result.heads if group.attention}
    tracks: dict[tuple[str, ...], list[HeadRecord]] = {}
    for group in result.heads:
        stack = group.stack if len(stacks) > 1 else ""
        attention = (group.attention or "") if len(attentions) > 1 else ""
        tracks.setdefault((stack, attention, group.space), []).append(group)
    return [
        HeadTrack(
            key="/".join(part for part in key if part),
            title=" · ".join(
                part for part in (*key[:2], f"{SPACE_WORDS[key[2]].capitalize()} space") if part
            ),
            space=key[2],
            groups=tuple(sorted(groups, key=lambda group: group.layer)),
        )
        for key, groups in tracks.items()
    ]


def place(record: PairRecord | HeadRecord) -> str:
    """Position of a record, in words: ``"layer 4"``, or its name where no layer is known."""
    if record.layer is not None:
        return f"layer {record.layer}"
    return record.name if isinstance(record, PairRecord) else "the model"
