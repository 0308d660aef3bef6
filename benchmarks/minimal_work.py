"""The least work that a scan has to do: matrix products, eigenproblems and QR, counted and timed.

Counted from the header alone: the tasks of `flagscope.inspect` say which maps meet. Each distinct
piece of work is counted once in a whole scan, whatever the scan itself does twice:

- the Gram matrix and the eigenvectors of every map on every space where it is compared (one for
  each norm that is folded in, as that makes another matrix);
- for a pair: the cosines K of the eigenvectors; K β Kᵀ, which gives the commutator and, scaled by
  α, the squared singular values of W2 W1, whose eigenvalues are taken (but not across the stream
  in single precision); the Gram matrix of the dominant block of K, or of the block that its
  complement leaves where that is smaller, and its eigenvalues, which are the squared principal
  cosines. Where the shared space is the larger side, the same from G1, G2 and M = W2 W1. What is
  measured again after gauge fixing is counted again, as its matrices are others: all but W2 W1, its
  singular values, and the angles;
- for the heads of a layer: the Gram matrix of every head and the product that makes it orthonormal,
  the Gram matrix of all bases (or, where that is less, that of their projectors), the eigenvalues
  of the projectors' sum in float32;
- for a link between heads: the same for both ends and the other factors of their circuits, and two
  products of all heads with all.

In mixed precision eigenproblems of 512 and more, and the products around them, are in float32; the
eigenvalues of products and of dominant blocks are in float64. A Gram matrix of 512 and more is
counted as 5/8 of its product, which is what four blocks of rows need.

The dominant block has the size that Gaussian maps of these shapes have on average, d m/(d + m + 1).
Reading, widening, null models, tests and records are not counted: they are what the scan may cost
beyond its minimal work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Literal

import torch
from torch import Tensor

from flagscope.api import Inspection
from flagscope.arch import HeadGroup, LinearMap, LinkGroup, Norm, PairGroup, Side, StreamMap
from flagscope.diagnose import SINGLE_FROM, symmetric_share

Kind = Literal["product", "vectors", "values", "triangle"]
# Operations of an n×n symmetric eigenproblem in units of n³, as `flagscope inspect` counts them.
_UNITS = {"vectors": 9.0, "values": 4 / 3}
# Time of one in multiply-adds, by which the cheaper of two ways is chosen.
_TIME = 10


@dataclass(frozen=True)
class Call:
    """One library call on a batch of random operands.

    `shape` is (m, n, k) of a product (m, k) @ (k, n), (n,) of a symmetric eigenproblem, with
    vectors or values alone, and (rows, columns) of a QR decomposition.
    """

    kind: Kind
    shape: tuple[int, ...]
    batch: int = 1
    dtype: str = "float64"

    @property
    def flops(self) -> float:
        """Floating-point operations."""
        if self.kind == "product":
            return 2.0 * self.batch * prod(self.shape)
        if self.kind == "triangle":
            rows, columns = self.shape
            return 4.0 * self.batch * rows * columns * min(rows, columns)
        return _UNITS[self.kind] * self.batch * self.shape[0] ** 3


def minimal_work(found: Inspection, *, precision: str = "mixed") -> Counter[Call]:
    """The calls of a whole scan and how often each is made.

    Parameters
    ----------
    found
        What `flagscope.inspect` says of the model.
    precision
        The arithmetic of the scan.
    """
    work = _Work(precision)
    for task in found.tasks:
        for pair in task.pairs:
            (work.residual if pair.kind == "residual" else work.inside)(pair)
        for head in task.heads:
            work.heads(head)
        for link in task.links:
            work.link(link)
    return work.calls


class _Work:
    def __init__(self, precision: str) -> None:
        self.calls: Counter[Call] = Counter()
        self._single_from = {"mixed": SINGLE_FROM, "float32": 0}.get(precision, 2**31)
        self._done: set[Hashable] = set()

    def inside(self, pair: PairGroup) -> None:
        """Pairs of one block: heads, an MLP, neighbours of a plain network."""
        d, n = pair.d, len(pair.members)
        others = _other(pair.write, d), _other(pair.read, d)
        counts = [len({getattr(m, f"{which}_index") for m in pair.members})
                  for which in ("write", "read")]  # fmt: skip
        dtype = self._dtype(min(d, max(others)))
        large = [_system(d, other, count, dtype)
                 for other, count in zip(others, counts, strict=True)]  # fmt: skip
        small = [
            [_gram(m, d, count, dtype), Call("vectors", (m,), count, dtype)]
            for m, count in zip(others, counts, strict=True)
        ]
        composite = [Call("product", (others[1], others[0], d), n, dtype)]
        meeting = _meeting(d, *others, n, dtype)
        around = _around_composite(d, *others, n, dtype)
        by_small = [*small[0], *small[1], *composite, *around]
        if _time([*large[0], *large[1], *meeting]) <= _time(by_small):
            way, (writes, reads), composite, tables = "large", large, [], meeting
        else:
            way, (writes, reads), tables = "small", small, around
        # Pairs may share the maps that read.
        members = tuple(sorted({m.read_index for m in pair.members}))
        key = way, pair.read.map.place, pair.read.transposed, _name(pair.read_norm), members
        self._once(key, reads)
        self._add(writes + composite + tables + _position(d, *others, n))
        self._add(_product_values(d, *others, n))
        if _measured_again(pair):
            # Gauge fixing leaves W2 W1 as it is, and no angles are taken after it.
            self._add(writes + reads + tables)

    def residual(self, pair: PairGroup) -> None:
        """A pair across the stream: each side's eigenproblem once in the scan, then products."""
        before, behind = pair.read_norm, pair.write_norm
        centred = before is not None and before.kind == "layernorm"
        d = pair.d - centred
        dtype = self._dtype(pair.d)
        for which, side, norm in (("write", pair.write, behind), ("read", pair.read, before)):
            for index in {getattr(m, f"{which}_index") for m in pair.members}:
                key = (which, side.map.place, side.transposed, index, _name(norm), centred)
                self._once(key, _system(d, _other(side, pair.d), 1, dtype))
        others = _other(pair.write, pair.d), _other(pair.read, pair.d)
        self._add(_meeting(d, *others, len(pair.members), dtype))
        self._add(_position(d, *others, len(pair.members)))
        if dtype == "float64":
            self._add(_product_values(d, *others, len(pair.members)))

    def heads(self, head: HeadGroup) -> None:
        """The overlaps of a layer's heads in one space."""
        h, r, d = head.count, min(head.rank, head.d), head.d
        dtype = self._dtype(d)
        self._add(_bases(h, r, d))
        gram, g = _gram(h * r, d, 1, dtype), min(d, h * r)
        projectors = [
            Call("product", (d, d, r), h, dtype),
            Call("product", (h, h, d * d), 1, dtype),
        ]
        small = h * r <= d
        overlaps = [gram] if _time([gram]) <= _time(projectors) else projectors
        self._add(overlaps)
        if not (small and overlaps == [gram]):
            self._add([_gram(g, max(d, h * r), 1, "float32")])
        self._add([Call("values", (g,), 1, "float32")])

    def link(self, link: LinkGroup) -> None:
        """Links between the heads of two layers."""
        norm = link.read.norm
        centred = norm is not None and norm.kind == "layernorm"
        sizes = []
        for which, face in (("write", link.write), ("read", link.read)):
            if face.heads is None:
                return
            h, r, d = _heads(face)
            d -= centred
            sizes.append((h * r, d))
            self._once(("end", which, face.label, centred), self._end(face, h, r, d))
        (one, d), (two, _) = sizes
        self._add([Call("product", (one, two, d), 1, self._dtype(d))] * 2)

    def _end(self, face: StreamMap, h: int, r: int, d: int) -> list[Call]:
        if face.partner is None:
            return _bases(h, r, d)
        long = prod(face.partner.extent(name) for name in _axes(face.partner)) // (h * r)
        dtype = self._dtype(d)
        circuits = [
            Call("product", (r, r, long), h), Call("product", (r, d, r), h, dtype),
            Call("product", (r, r, d), h, dtype),
        ]  # fmt: skip
        return _bases(h, r, d) + circuits

    def _dtype(self, size: int) -> str:
        return "float32" if size >= self._single_from else "float64"

    def _once(self, key: Hashable, calls: Iterable[Call]) -> None:
        if key not in self._done:
            self._done.add(key)
            self._add(calls)

    def _add(self, calls: Iterable[Call]) -> None:
        self.calls.update(calls)


def _bases(h: int, r: int, d: int) -> list[Call]:
    """Orthonormal bases of h heads (r, d), by Cholesky: a Gram matrix and a product each."""
    return [Call("product", (r, r, d), h), Call("product", (r, d, r), h)]


def _system(d: int, m: int, count: int, dtype: str) -> list[Call]:
    """Eigenvectors of W Wᵀ on d dimensions, for `count` maps (d, m)."""
    if m >= d:
        return [_gram(d, m, count, dtype), Call("vectors", (d,), count, dtype)]
    if dtype == "float32":
        return [_gram(m, d, count, dtype), Call("vectors", (m,), count, dtype),
                Call("product", (d, m, m), count, dtype)]  # fmt: skip
    return [
        Call("triangle", (d, m), count), _gram(m, m, count, "float64"),
        Call("vectors", (m,), count), Call("product", (d, m, m), count),
    ]  # fmt: skip


def _gram(m: int, k: int, count: int, dtype: str) -> Call:
    """X Xᵀ of X (m, k): a large one takes the products of four blocks of rows with those behind."""
    return Call("product", (m, int(m * symmetric_share(m)), k), count, dtype)


def _meeting(d: int, m1: int, m2: int, n: int, dtype: str) -> list[Call]:
    """Cosines of the eigenvectors of a pair, and what its commutator follows from."""
    p, q = min(d, m1), min(d, m2)
    return [Call("product", (p, q, d), n, dtype), _weighed(d, m1, m2, n, dtype)]


def _weighed(d: int, m1: int, m2: int, n: int, dtype: str) -> Call:
    return _gram(*sorted((min(d, m1), min(d, m2))), n, dtype)


def _position(d: int, m1: int, m2: int, n: int) -> list[Call]:
    """Squared principal cosines: of the dominant block, or of what its complement leaves."""
    small, large = sorted((_dominant(d, m1), _dominant(d, m2)))
    if min(m1, m2) >= d:
        small, large = sorted((small, min(large, d - large)))
    return [_gram(small, large, n, "float64"), Call("values", (small,), n)]


def _product_values(d: int, m1: int, m2: int, n: int) -> list[Call]:
    """Singular values of W2 W1, by their squares."""
    return [Call("values", (min(d, m1, m2),), n)]


def _around_composite(d: int, m1: int, m2: int, n: int, dtype: str) -> list[Call]:
    """W2 W1 between the eigenvectors of the small Grams, and what is read from that."""
    products = (m1, m2, m2), (m1, m2, m1)
    calls = [Call("product", shape, n, dtype) for shape in products]
    return [*calls, _weighed(d, m1, m2, n, dtype)]


def timed(calls: Counter[Call], *, workers: int = 1) -> float:
    """Seconds that the calls take on random operands.

    Parameters
    ----------
    calls
        What to run, and how often.
    workers
        1: one call after the other, each with all threads. More: so many calls at once, the
        largest first, PyTorch's threads shared out among them.
    """
    operands = {call: _operands(call) for call in calls}
    for call in calls:
        if call.flops < 1e9:  # a first call sets up what later ones use
            _run(call, operands[call])
    queue = sorted(calls.elements(), key=lambda call: -call.flops)
    threads = torch.get_num_threads()
    if workers == 1:
        start = perf_counter()
        for call in queue:
            _run(call, operands[call])
        return perf_counter() - start
    torch.set_num_threads(max(1, threads // workers))
    try:
        with ThreadPoolExecutor(workers) as pool:
            start = perf_counter()
            list(pool.map(lambda call: _run(call, operands[call]), queue))
            return perf_counter() - start
    finally:
        torch.set_num_threads(threads)


def listing(calls: Counter[Call]) -> list[dict[str, object]]:
    """The calls as rows of a table, the most operations first."""
    rows = [
        {"kind": c.kind, "shape": list(c.shape), "batch": c.batch, "dtype": c.dtype,
         "times": n, "gflop": n * c.flops / 1e9}
        for c, n in calls.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -float(str(row["gflop"])))


def _operands(call: Call) -> tuple[Tensor, ...]:
    kinds = {"float64": torch.float64, "float32": torch.float32}
    made = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(call.batch, *shape, dtype=kinds[call.dtype], generator=made)

    if call.kind == "product":
        m, n, k = call.shape
        return random(m, k), random(k, n)
    if call.kind == "triangle":
        return (random(*call.shape),)
    (n,) = call.shape
    # The spectrum of a Gaussian map: how fast divide and conquer goes depends on it.
    maps = random(n, 2 * n)
    return (maps @ maps.mT,)


def _run(call: Call, operands: tuple[Tensor, ...]) -> None:
    if call.kind == "product":
        torch.bmm(*operands)
    elif call.kind == "vectors":
        torch.linalg.eigh(*operands)
    elif call.kind == "values":
        torch.linalg.eigvalsh(*operands)
    else:
        torch.linalg.qr(*operands)


def _time(calls: Iterable[Call]) -> float:
    """Multiply-adds, eigenproblems weighed by what they take in time."""
    return sum(
        c.flops / 2 if c.kind in ("product", "triangle") else _TIME * c.batch * c.shape[0] ** 3
        for c in calls
    )


def _measured_again(pair: PairGroup) -> bool:
    """Whether gauge fixing gives other maps to measure: always, but for all of GL on one pair."""
    if pair.freedom in ("scaling", "rotary"):
        return True
    writes = {m.write_index for m in pair.members}
    reads = {m.read_index for m in pair.members}
    return pair.freedom == "gl" and min(len(writes), len(reads)) < len(pair.members)


def _dominant(d: int, m: int) -> int:
    """Participation ratio of a Gaussian (d, m) map, on average (Marchenko and Pastur)."""
    return max(1, round(d * m / (d + m + 1)))


def _axes(one: LinearMap) -> list[str]:
    return [name for name in one.sizes if name not in one.select]


def _other(side: Side, d: int) -> int:
    one = side.map
    return prod(one.extent(name) for name in _axes(one)) // (one.count * d)


def _heads(face: StreamMap) -> tuple[int, int, int]:
    """Heads, their rank and the dimension of the stream."""
    one = face.heads
    assert one is not None
    d = one.outputs if face.role == "o" else one.inputs
    return one.count, (one.inputs if face.role == "o" else one.outputs), d


def _name(norm: Norm | None) -> str | None:
    return None if norm is None else norm.name
