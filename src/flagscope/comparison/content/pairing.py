"""Which tensor of one checkpoint belongs to which of another."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Literal

from flagscope.arch import build_graph
from flagscope.arch.maps import LinearMap
from flagscope.checkpoint import Checkpoint, TensorInfo
from flagscope.comparison.content.parts import (
    Place,
    layer_places,
    model_part,
    weights_of,
)
from flagscope.errors import ArchitectureError, InputError
from flagscope.records.comparison.content_parts import ModelPart

By = Literal["name", "prefix", "tied", "map", "layer"]
# Prefixes that are tried, the most frequent first; lengths of names; parts of a prefix.
_MOST_PREFIXES, _MOST_LENGTHS, _MOST_PARTS = 64, 256, 4
_UNEMBEDDINGS = ("lm_head.weight", "output.weight", "embed_out.weight", "head.weight")


@dataclass(frozen=True)
class Pair:
    """A tensor of A and the tensor of B that belongs to it."""

    a: TensorInfo
    b: TensorInfo
    by: By
    part: ModelPart
    layer_a: int | None = None
    layer_b: int | None = None
    turned: bool = False

    @property
    def transposed(self) -> bool:
        """Whether one is compared as its transpose: it is `turned`, or no other shape fits."""
        return self.turned or (
            len(self.a.shape) == 2
            and self.a.shape != self.b.shape
            and self.a.shape == self.b.shape[::-1]
        )

    @property
    def common_shape(self) -> tuple[int, ...] | None:
        """Shape that both hold: the fewer rows of two that differ in nothing else; None if none."""
        if self.transposed:
            return self.a.shape
        if self.a.shape == self.b.shape:
            return self.a.shape
        a, b = self.a.shape, self.b.shape
        if len(a) < 2 or a[1:] != b[1:]:
            return None
        return (min(a[0], b[0]), *a[1:])


@dataclass(frozen=True)
class Pairing:
    """All pairs of two checkpoints, and what has no counterpart.

    `prefix_a` and `prefix_b` were taken off the names of either side; `notes` say what could not
    be paired for a reason.
    """

    pairs: tuple[Pair, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    places_a: Mapping[str, Place]
    places_b: Mapping[str, Place]
    prefix_a: str = ""
    prefix_b: str = ""
    notes: tuple[str, ...] = ()


def paired_tensors(a: Checkpoint, b: Checkpoint) -> Pairing:
    """Pairs of tensors that belong together.

    By the same name; by the same name with one prefix put in front on one side, learned from the
    names; a tensor that one side leaves out since it is tied to another; by the place of the
    maps in the two networks where names do not meet.
    """
    names_a, names_b = weights_of(a.tensors, a.auxiliary), weights_of(b.tensors, b.auxiliary)
    prefix_a, prefix_b = common_prefixes(names_a, names_b)
    met = _by_names(names_a, names_b, prefix_a, prefix_b)
    by: By = "prefix" if prefix_a or prefix_b else "name"
    found = _found(met, by)
    only_a = [name for name in names_a if name not in met]
    taken = set(met.values())
    only_b = [name for name in names_b if name not in taken]
    maps, notes = _by_maps(a, b, only_a, only_b)
    found += _found(maps, "map")
    only_a = [name for name in only_a if name not in maps]
    taken = set(maps.values())
    only_b = [name for name in only_b if name not in taken]
    tied_a = _tied(only_a, only_b, found, a, b)
    found += tied_a
    ends_a, ends_b = {x for x, _, _ in tied_a}, {y for _, y, _ in tied_a}
    places_a, places_b = layer_places(names_a), layer_places(names_b)
    pairs = tuple(
        made_pair(a.tensors[one], b.tensors[other], how, places_a, places_b)
        for one, other, how in found
    )
    return Pairing(
        pairs,
        tuple(name for name in only_a if name not in ends_a),
        tuple(name for name in only_b if name not in ends_b),
        places_a, places_b, prefix_a, prefix_b, notes,
    )  # fmt: skip


def _found(met: Mapping[str, str], by: By) -> list[tuple[str, str, By]]:
    return [(one, other, by) for one, other in met.items()]


def made_pair(
    one: TensorInfo, other: TensorInfo, by: By,
    places_a: Mapping[str, Place], places_b: Mapping[str, Place],
) -> Pair:  # fmt: skip
    """The pair of two tensors."""
    at, there = places_a.get(one.name), places_b.get(other.name)
    return Pair(
        one, other, by, model_part(one, at),
        None if at is None else at.layer, None if there is None else there.layer,
    )  # fmt: skip


def common_prefixes(names_a: Collection[str], names_b: Collection[str]) -> tuple[str, str]:
    """Prefixes to take off the names of either side, so that the most names meet; "" for none.

    Candidates are what stands in front of the other side's names where one ends with them, so
    that no list of wrappers is needed; and, where few names meet so, what stands in front of a
    common end on either side.

    Examples
    --------
    >>> common_prefixes(["model.h.0.w", "model.h.1.w", "head"], ["h.0.w", "h.1.w", "head"])
    ('model.', '')
    """
    set_a, set_b = set(names_a), set(names_b)
    best, chosen = len(set_a & set_b), ("", "")
    for side, (long, short) in enumerate(((set_a, set_b), (set_b, set_a))):
        candidates = Counter(_candidate_prefixes(long - short, short - long))
        for prefix, _ in sorted(candidates.most_common(_MOST_PREFIXES), key=lambda item: item[0]):
            count = len(_met(long, short, prefix))
            if count > best:
                best, chosen = count, ((prefix, "") if side == 0 else ("", prefix))
    if 2 * best < min(len(set_a), len(set_b)):
        return _exchanged_prefixes(set_a, set_b, best) or chosen
    return chosen


def _exchanged_prefixes(set_a: set[str], set_b: set[str], best: int) -> tuple[str, str] | None:
    """Prefixes of both sides with which more names meet than that, the shortest of these."""
    starts: list[dict[str, str]] = []
    for names in (set_a, set_b):
        ends: dict[str, str] = {}
        for name in sorted(names):
            place = name.find(".") + 1
            for _ in range(_MOST_PARTS):
                if not place:
                    break
                ends.setdefault(name[place:], name[:place])
                place = name.find(".", place) + 1
        starts.append(ends)
    counts = Counter(
        (start, starts[1][end]) for end, start in starts[0].items() if end in starts[1]
    )
    counted = [
        (-len(_stripped(set_a, one).keys() & _stripped(set_b, other).keys()), one, other)
        for (one, other), _ in counts.most_common(_MOST_PREFIXES)
    ]
    if not counted:
        return None
    count, one, other = min(counted, key=lambda item: (item[0], len(item[1]) + len(item[2]), item))
    enough = max(best, 2, (min(len(set_a), len(set_b)) - 1) // 2)
    return (one, other) if -count > enough else None


def _stripped(names: set[str], prefix: str) -> dict[str, str]:
    """Names by what is left without a prefix, as long as they stay different."""
    short = {name.removeprefix(prefix): name for name in sorted(names) if name.startswith(prefix)}
    return {name: name for name in names if not name.startswith(prefix)} | short


def _candidate_prefixes(long: Collection[str], short: Collection[str]) -> list[str]:
    """What stands in front of a shorter name in a longer one."""
    ends: dict[str, list[str]] = defaultdict(list)
    for name in sorted(short):
        ends[name.rpartition(".")[2]].append(name)
    # Names of real tensors have a few dozen lengths; those of a hostile file may have more.
    lengths = {
        end: sorted({len(name) for name in names})[:_MOST_LENGTHS] for end, names in ends.items()
    }
    known = set(short)
    found = []
    for name in sorted(long):
        for length in lengths.get(name.rpartition(".")[2], ()):
            prefix = name[: len(name) - length]
            if prefix.endswith(".") and name[len(prefix) :] in known:
                found.append(prefix)
    return found


def _met(long: set[str], short: set[str], prefix: str) -> dict[str, str]:
    """Names of the long side by those of the short one; what meets without the prefix first."""
    met = {name: name for name in long & short}
    for name in long - short:
        rest = name.removeprefix(prefix)
        if rest != name and rest in short and rest not in met:
            met[rest] = name
    return met


def _by_names(
    names_a: Collection[str], names_b: Collection[str], prefix_a: str, prefix_b: str
) -> dict[str, str]:
    set_a, set_b = set(names_a), set(names_b)
    if prefix_a and prefix_b:
        short_a, short_b = _stripped(set_a, prefix_a), _stripped(set_b, prefix_b)
        met = {name: short_b[short] for short, name in short_a.items() if short in short_b}
        return {name: met[name] for name in names_a if name in met}
    if prefix_b:
        met = _met(set_b, set_a, prefix_b)
        return {name: met[name] for name in names_a if name in met}
    met = {long: short for short, long in _met(set_a, set_b, prefix_a).items()}
    return {name: met[name] for name in names_a if name in met}


def _tied(
    only_a: Collection[str], only_b: Collection[str], found: list[tuple[str, str, By]],
    a: Checkpoint, b: Checkpoint,
) -> list[tuple[str, str, By]]:  # fmt: skip
    """Unembeddings that one side leaves out, with what they are tied to there."""
    tied: list[tuple[str, str, By]] = []
    for one, other, _ in found:
        if model_part(a.tensors[one], None) != "embedding" or len(a.tensors[one].shape) != 2:
            continue
        for name in only_a:
            if name.endswith(_UNEMBEDDINGS) and a.tensors[name].shape == a.tensors[one].shape:
                tied.append((name, other, "tied"))
        for name in only_b:
            if name.endswith(_UNEMBEDDINGS) and b.tensors[name].shape == b.tensors[other].shape:
                tied.append((one, name, "tied"))
    return tied[:2]


def _by_maps(
    a: Checkpoint, b: Checkpoint, only_a: list[str], only_b: list[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Whole tensors that hold the same map of both networks, by role, layer and shape."""
    if not only_a or not only_b:
        return {}, ()
    places_a, places_b = _map_places(a, set(only_a)), _map_places(b, set(only_b))
    met: dict[str, str] = {}
    used: set[str] = set()
    notes: list[str] = []
    turned: list[str] = []
    for key, (one, rotary_a) in places_a.items():
        if key not in places_b:
            continue
        other, rotary_b = places_b[key]
        if rotary_a is not None and rotary_b is not None and rotary_a != rotary_b:
            turned.append(one)
        elif a.tensors[one].shape == b.tensors[other].shape and other not in used:
            met[one] = other
            used.add(other)
    if turned:
        notes.append(
            f"the rotary embeddings of the two files turn other pairs of rows, so that "
            f"{len(turned)} maps such as {turned[0]} cannot be compared row by row"
        )
    return met, tuple(notes)


def _map_places(checkpoint: Checkpoint, wanted: set[str]) -> dict[Hashable, tuple[str, str | None]]:
    """Tensors that are one map each, by what they are in the network; and their rotary layout."""
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()
              if name not in checkpoint.auxiliary}  # fmt: skip
    try:
        graph = build_graph(shapes, checkpoint.config, wiring=checkpoint.wiring)
    except (ArchitectureError, InputError):
        return {}
    found: dict[Hashable, tuple[str, str | None]] = {}
    twice: set[Hashable] = set()
    sides: list[tuple[LinearMap, Hashable, str | None]] = []
    for pair in graph.pairs:
        if pair.kind == "residual":
            continue
        layout = pair.rotary.layout if pair.rotary else None
        for which, side in (("write", pair.write), ("read", pair.read)):
            sides.append((side.map, (pair.kind, pair.layer, which), layout))
    for one, key, layout in sides:
        place = (*key, one.role, one.shape) if isinstance(key, tuple) else key
        if one.index() is not None or one.tensor not in wanted:
            continue
        if place in found and found[place][0] != one.tensor:
            twice.add(place)
        found.setdefault(place, (one.tensor, layout))
    return {place: entry for place, entry in found.items() if place not in twice}
