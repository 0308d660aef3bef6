"""Whether a checkpoint is a linear combination of others, from inner products alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flagscope.checkpoint import Checkpoint, TensorInfo, widen
from flagscope.comparison.content.grids import half_steps
from flagscope.comparison.content.pairing import Pairing, paired_tensors
from flagscope.comparison.content.patterns import mixture_patterns
from flagscope.comparison.content.reading import Side, comparable
from flagscope.comparison.row_blocks import row_blocks, row_index
from flagscope.records.comparison.content_parts import Mixture, MixtureFit

# Entries of each side that are held at once.
_READ = 1 << 20
# A merge may round more than once on its way: twice the rounding of the result is left at most.
_ROUNDINGS = 2.0
# Matrices of fewer entries say little about their own coefficients.
_LEAST_ENTRIES = 256
# Squared norms that Gram matrices in float64 give of small differences of large vectors.
_GRAM = 2.0**-44
_SLERP = 1e-3


@dataclass(frozen=True)
class TensorGram:
    """Inner products of one tensor in A, B and the parents, and rounding errors' squares."""

    names: tuple[str, ...]
    gram: Tensor
    noise: tuple[float, float]
    entries: int
    matrix: bool


def mixtures(
    pairing: Pairing, a: Checkpoint, b: Checkpoint, parents: Sequence[Checkpoint]
) -> tuple[Mixture, Mixture]:
    """A, and B, as combinations of the parents: by themselves, and over the other as base.

    References
    ----------
    G. Ilharco et al., "Editing models with task arithmetic", arXiv 2212.04089.
    """
    checkpoints = (a, b, *parents)
    grams = [_gram(names, checkpoints) for names in _common(pairing, a, parents, checkpoints)]
    grams = [gram for gram in grams if bool(torch.isfinite(gram.gram).all())]
    return tuple(_mixture(side, grams, checkpoints) for side in (0, 1))  # pyright: ignore


def _common(
    pairing: Pairing, a: Checkpoint, parents: Sequence[Checkpoint],
    checkpoints: Sequence[Checkpoint],
) -> list[tuple[str, ...]]:  # fmt: skip
    """Names, on each side, of the tensors that all hold in one shape."""
    of_parents = [
        {pair.a.name: pair.b.name for pair in paired_tensors(a, parent).pairs if pair.by != "tied"}
        for parent in parents
    ]
    found = []
    for pair in pairing.pairs:
        if pair.part == "buffer" or pair.by in ("tied", "layer"):
            continue
        names = (pair.a.name, pair.b.name, *(each.get(pair.a.name, "") for each in of_parents))
        infos = [
            checkpoint.tensors[name]
            for checkpoint, name in zip(checkpoints, names, strict=True) if name
        ]  # fmt: skip
        one_shape = len(infos) == len(names) and len({info.shape for info in infos}) == 1
        if one_shape and all(map(comparable, infos)) and 0 not in infos[0].shape:
            found.append(names)
    return found


def read_side(checkpoint: Checkpoint, info: TensorInfo, rows: slice) -> Side:
    """Rows of one tensor."""
    index = row_index(info.shape, rows)
    stored, scale = checkpoint.read(info.name, index), checkpoint.scale(info.name, index)
    step = checkpoint.step(info.name, index)
    return Side(stored, scale, step, widen(stored, torch.float64, scale=scale))


def _gram(names: tuple[str, ...], checkpoints: Sequence[Checkpoint]) -> TensorGram:
    infos = [checkpoint.tensors[name] for checkpoint, name in zip(checkpoints, names, strict=True)]
    gram = torch.zeros(len(names), len(names), dtype=torch.float64)
    noise = [0.0, 0.0]
    for rows in row_blocks(infos[0].shape, _READ):
        sides = [
            read_side(checkpoint, info, rows)
            for checkpoint, info in zip(checkpoints, infos, strict=True)
        ]
        stacked = torch.stack([side.values.reshape(-1) for side in sides])
        gram += stacked @ stacked.T
        for place in (0, 1):
            # Errors are uniform in the half step to either side: their square is a third of its.
            noise[place] += float((half_steps(sides[place], infos[place]) ** 2).sum()) / 3
    shape = infos[0].shape
    entries = math.prod(shape)
    return TensorGram(names, gram, (noise[0], noise[1]), entries, len(shape) > 1)


@dataclass(frozen=True)
class _Fit:
    coefficients: Tensor
    left: float
    whole: float


def _mixture(side: int, grams: Sequence[TensorGram], checkpoints: Sequence[Checkpoint]) -> Mixture:
    plain, over = (_fitted(side, grams, base=base) for base in (False, True))
    linear = plain.each or over.each
    patterns = () if linear else mixture_patterns(
        side, [gram.names for gram in grams if gram.matrix], checkpoints)  # fmt: skip
    return Mixture(without_base=plain, with_base=over, patterns=patterns, linear=linear)


def _fitted(side: int, grams: Sequence[TensorGram], *, base: bool) -> MixtureFit:
    if not grams:
        return _undefined(base, 0, "no tensor is there in all checkpoints in one shape")
    totals = torch.stack([gram.gram for gram in grams]).sum(0)
    whole = _solved(side, totals, base=base)
    noise = sum(gram.noise[side] for gram in grams)
    if whole is None or whole.whole <= 0:
        return _undefined(base, len(grams), "there is nothing to fit: the side equals the base")
    singles = [_solved(side, gram.gram, base=base) for gram in grams]
    bounds = [
        _ROUNDINGS**2 * gram.noise[side] + _GRAM * float(gram.gram.diagonal().max())
        for gram in grams
    ]
    agree = all(
        _left(side, gram.gram, whole.coefficients, base=base) <= bound
        for gram, bound in zip(grams, bounds, strict=True)
    )
    each = all(one is None or one.left <= bound for one, bound in zip(singles, bounds, strict=True))
    kept = [
        (one.coefficients, gram) for one, gram in zip(singles, grams, strict=True)
        if one is not None and gram.matrix and gram.entries >= _LEAST_ENTRIES
        and one.whole > 4 * gram.noise[side]
    ]  # fmt: skip
    stacked = torch.stack([one for one, _ in kept]) if kept else None
    left = whole.left if agree else sum(one.left for one in singles if one is not None)
    return MixtureFit(
        base=base, coefficients=tuple(whole.coefficients.tolist()),
        total=float(whole.coefficients.sum()), residual=math.sqrt(max(0.0, left) / whole.whole),
        rounding=math.sqrt(noise / whole.whole),
        lowest=None if stacked is None else tuple(stacked.amin(0).tolist()),
        highest=None if stacked is None else tuple(stacked.amax(0).tolist()),
        agree=agree, each=each,
        slerp=each and not base and bool(kept) and all(_spherical(*one) for one in kept),
        tensors=len(grams), status=_status(side, totals, base=base),
    )  # fmt: skip


def _undefined(base: bool, tensors: int, status: str) -> MixtureFit:
    return MixtureFit(
        base=base, coefficients=None, total=None, residual=None, rounding=None, lowest=None,
        highest=None, agree=False, each=False, slerp=False, tensors=tensors, status=status,
    )  # fmt: skip


def _turned(side: int, gram: Tensor, *, base: bool) -> Tensor:
    """Gram matrix of what is fitted, first, and the parents; as differences from the base."""
    size = len(gram)
    rows = torch.zeros(size - 1, size, dtype=torch.float64)
    rows[0, side] = 1.0
    rows[1:, 2:] = torch.eye(size - 2, dtype=torch.float64)
    if base:
        rows[:, 1 - side] -= 1.0
    return rows @ gram @ rows.T


def _solved(side: int, gram: Tensor, *, base: bool) -> _Fit | None:
    turned = _turned(side, gram, base=base)
    if float(turned[0, 0]) <= _GRAM * float(gram.diagonal().max()):
        return None
    coefficients = torch.linalg.pinv(turned[1:, 1:], rtol=1e-12, hermitian=True) @ turned[1:, 0]
    return _Fit(coefficients, _left(side, gram, coefficients, base=base), float(turned[0, 0]))


def _left(side: int, gram: Tensor, coefficients: Tensor, *, base: bool) -> float:
    turned = _turned(side, gram, base=base)
    weights = torch.cat((torch.ones(1, dtype=torch.float64), -coefficients))
    return max(0.0, float(weights @ turned @ weights))


def _status(side: int, gram: Tensor, *, base: bool) -> str:
    parents = _turned(side, gram, base=base)[1:, 1:]
    scales = parents.diagonal().sqrt()
    if bool((scales == 0).any()):
        return "a parent adds nothing: it is zero, or equals the base"
    values = torch.linalg.eigvalsh(parents / scales / scales[:, None])
    if float(values[0]) < 1e-9:
        return "the parents are not independent of each other, so that coefficients are not unique"
    return "ok"


def _spherical(coefficients: Tensor, gram: TensorGram) -> bool:
    """Whether two coefficients are sin((1-t)ω)/sin ω and sin(tω)/sin ω at the parents' angle ω."""
    if len(coefficients) != 2:
        return False
    first, second = coefficients.tolist()
    g = gram.gram
    cosine = float(g[2, 3] / (g[2, 2] * g[3, 3]).sqrt())
    norm = first**2 + second**2 + 2 * first * second * cosine
    # Between parallel parents this is the mean; it differs by the length that a mean would lose.
    lost = (first + second) ** 2 - norm
    return abs(norm - 1) < _SLERP and abs(lost) > 10 * _SLERP
