"""Records of a network's linear maps: which are adjacent, where they are, what lies between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flagscope.arch.maps import LinearMap
from flagscope.arch.norm import Norm
from flagscope.arch.pair_side import Side
from flagscope.arch.stream import Stream
from flagscope.arch.stream_links import LinkGroup
from flagscope.errors import ArchitectureError
from flagscope.records import Attention, Freedom, HeadSpace, PairKind


@dataclass(frozen=True)
class Member:
    """One pair of a group: the index of its writer and of its reader."""

    name: str
    write_index: int = 0
    read_index: int = 0
    head: int | None = None
    kv_head: int | None = None
    expert: int | None = None


@dataclass(frozen=True)
class Rotary:
    """A rotary position embedding on the first `dims` of a head's dimensions.

    Layout "half" turns the planes (j, j + dims/2), "interleaved" the planes (2j, 2j + 1)
    (Su et al., arXiv 2104.09864). The other dimensions are not rotated.

    Examples
    --------
    >>> Rotary(dims=4, layout="half").planes()
    [(0, 2), (1, 3)]
    """

    dims: int
    layout: Literal["half", "interleaved"]

    def __post_init__(self) -> None:
        if self.dims <= 0 or self.dims % 2 or self.layout not in ("half", "interleaved"):
            raise ArchitectureError(
                f"a rotary embedding of layout {self.layout!r} cannot turn {self.dims} dimensions",
                hint="the number of turned dimensions is even and positive, the layout 'half' "
                "or 'interleaved': check the config's head_dim and partial rotary factor",
            )

    def planes(self) -> list[tuple[int, int]]:
        """Index pairs of the planes, by frequency."""
        half = self.dims // 2
        if self.layout == "half":
            return [(j, j + half) for j in range(half)]
        return [(2 * j, 2 * j + 1) for j in range(half)]


@dataclass(frozen=True)
class PairGroup:
    """The adjacent pairs of one layer and kind that share stored tensors.

    Parameters
    ----------
    name
        Common part of the members' names.
    between
        Operation between the two maps: linear, rope, norm, relative, relu, gelu, gated,
        unknown …
    freedom
        Changes of the shared space that preserve the function of the network: all of GL(d); the
        commutant of the rotary embedding; positive scalings and permutations; permutations; one
        positive factor on a map whose scale a subsequent norm removes (along with rotations that
        commute with the norm); no change of the shared space but one on the other side of a map
        ("outer", across the stream); or none that is known. The two sides of a gated MLP are
        permuted together, and a change of a shared key or value head acts on all its query heads.
    d
        Dimension of the shared space.
    write, read
        The two sides; members say which of their maps meet.
    write_norm
        Norm directly after the writer, to be folded into it: a BatchNorm, or the norm or layer
        scale of a block's output before it is added to the residual stream.
    read_norm
        Norm before the reader: of the residual stream, whose gain is folded into the reader of
        residual pairs, or of a latent space.
    query_norm, key_norm
        Norms of the queries and keys after the maps of a Q-K pair, including those without tensors.
    heads_alike
        Whether the heads differ only in their weights, so that they may be permuted; False under a
        position bias with separate numbers for each head.
    write_layer
        Layer of the writer of a residual pair, whose `layer` is that of the reader.

    Raises
    ------
    ArchitectureError
        If the sides do not share a space of dimension `d`, or a member points outside.
    """

    name: str
    kind: PairKind
    between: str
    stack: str
    attention: Attention | None
    layer: int | None
    freedom: Freedom
    d: int
    write: Side
    read: Side
    members: tuple[Member, ...]
    rotary: Rotary | None = None
    write_norm: Norm | None = None
    read_norm: Norm | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    heads_alike: bool = True
    write_layer: int | None = None

    def __post_init__(self) -> None:
        written, heard = self.write.dimension("write"), self.read.dimension("read")
        if not written == heard == self.d:
            w, r = self.write.map, self.read.map
            raise ArchitectureError(
                f"pair {self.name!r}: {w.tensor!r} of shape {w.shape} writes {written} dimensions, "
                f"{r.tensor!r} of shape {r.shape} reads {heard}",
                hint="are both tensors from one model, and is the config (number of heads, "
                "key-value heads, head_dim) that of this checkpoint?",
            )
        for member in self.members:
            if not (
                0 <= member.write_index < self.write.map.count
                and 0 <= member.read_index < self.read.map.count
            ):
                raise ArchitectureError(
                    f"pair {member.name!r} points at map {member.write_index} of "
                    f"{self.write.map.count} and {member.read_index} of {self.read.map.count}",
                    hint="the number of query heads must be a multiple of the key-value heads",
                )


@dataclass(frozen=True)
class HeadGroup:
    """All heads of one layer in one space of the residual stream.

    The space of a head is the row space of its map for q, k and v (what it reads), the
    column space for o (what it writes). `rank` is the largest rank that a head can have there,
    `d` the dimension of the stream, `norm` the norm before the readers, if any.
    """

    stack: str
    attention: Attention | None
    layer: int
    space: HeadSpace
    map: LinearMap
    count: int
    rank: int
    d: int
    norm: Norm | None = None


@dataclass(frozen=True)
class Frame:
    """All maps and norms on the residual stream of a stack of RMSNorm blocks.

    The stream of such a stack has no preferred basis once the gains of its norms are folded
    into the subsequent readers. A frame exists only if every tensor of the checkpoint is
    accounted for: which reads the stream through which norm, and which writes to it.

    Parameters
    ----------
    d
        Dimension of the stream.
    embedding
        Writes the initial state of the stream: an output vector for each token.
    unembedding
        Reads the final state, after the last norm.
    tied
        Whether the unembedding shares the tensor of the embedding.
    norms
        The RMSNorms of the stream, each with the maps that read through it.
    writers
        Maps that add to the stream.
    """

    stack: str
    d: int
    embedding: LinearMap
    unembedding: LinearMap
    tied: bool
    norms: tuple[tuple[Norm, tuple[LinearMap, ...]], ...]
    writers: tuple[LinearMap, ...]


@dataclass(frozen=True)
class Outside:
    """A module outside of the layers of which a checkpoint holds tensors.

    Attributes
    ----------
    modules
        Its name, or several of which one is there.
    said
        What of the config implies it: a key and its value.
    """

    modules: tuple[str, ...]
    said: str


@dataclass(frozen=True)
class Graph:
    """A network's maps, as known from names, shapes and config.

    `unmapped` lists the matrices (tensors of two or more dimensions) that no pair uses, `notes`
    states in words what was assumed and what could not be mapped, `frames` holds the residual
    streams that may be rotated, `streams` those whose readers and writers are known, `links` the
    links between heads along them. `stacked` lists, by the name of the stack, tensors that a map
    stacks along a new first axis; `left` gives the reason why a matrix is unmapped, if known;
    `reading` is the content of a family file for an inferred mapping, `unplaced` the shapes of the
    tensors that such a reading left out. `outside` lists what a checkpoint of the family that the
    config names holds outside of its layers, as far as that is known.
    """

    family: str
    pairs: tuple[PairGroup, ...]
    heads: tuple[HeadGroup, ...]
    unmapped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    streams: tuple[Stream, ...] = ()
    links: tuple[LinkGroup, ...] = ()
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    reading: Mapping[str, Any] | None = None
    unplaced: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    outside: tuple[Outside, ...] = ()
