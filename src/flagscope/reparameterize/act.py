"""Action of a change on the tensors it touches, in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import Frame, LinearMap, Norm, PairGroup, Side
from flagscope.errors import InputError
from flagscope.reparameterize.change import Change, key_value_heads
from flagscope.reparameterize.symmetry import shared_member

# Gains that agree to ten digits are equal; the function is then kept to as many.
_COMMUTES = 1e-10
_EXACT = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Workspace:
    """A state dict being changed: tensors are widened on first use, the given ones stay."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state
        self.changed: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name in self.changed:
            return self.changed[name]
        if name not in self._state:
            raise InputError(
                f"the state has no tensor {name!r}, which the graph names",
                hint="make the graph from this very state (prefixes such as 'module.' count)",
            )
        stored = self._state[name]
        if stored.dtype not in _EXACT:
            raise InputError(
                f"tensor {name!r} is stored as {stored.dtype}",
                hint="widen quantised weights first; changes are computed in floating point",
            )
        return stored.detach().double()

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.changed[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self.changed or name in self._state


def act(change: Change, work: Workspace) -> None:
    """Carry out one change on the tensors of a workspace."""
    group = change.symmetry.group
    if isinstance(group, Frame):
        _turn_stream(group, change.values, work)
    elif change.kind == "heads":
        _permute_heads(change, group, work)
    elif change.kind in ("query scale", "key scale", "write scale"):
        side = group.read if change.kind == "key scale" else group.write
        for at in _chosen(change.symmetry.member, side):
            _write(side.map, at, change.values, work)
    else:
        if change.kind == "norm rotation":
            _check_gains(change, group, work)
        _change_shared(change, group, work)


def _chosen(member: int | None, side: Side) -> Iterable[int]:
    return range(side.map.count) if member is None else [member]


def forward(values: Tensor, x: Float[Tensor, "d m"]) -> Float[Tensor, "d m"]:
    """g x for a matrix, factors, one factor, or an order of places."""
    if not values.is_floating_point():
        return x[values.to(x.device)]
    g = values.to(x.device)
    return g @ x if g.ndim == 2 else g[:, None] * x if g.ndim else g * x


def backward(values: Tensor, x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """x g⁻¹."""
    if not values.is_floating_point():
        return x[:, values.to(x.device)]
    g = values.to(x.device)
    return torch.linalg.solve(g, x, left=False) if g.ndim == 2 else x / g


def _write(one: LinearMap, at: int, values: Tensor, work: Workspace) -> None:
    """W -> g W, b -> g b for one map of a batch."""
    matrices = one.write_matrices(work[one.tensor]).clone()
    matrices[at] = forward(values, matrices[at])
    work[one.tensor] = one.replace(work[one.tensor], matrices)
    if one.bias is not None:
        vectors = one.bias_vectors(work[one.bias]).clone()
        # a bias that all maps of the batch add is one vector
        own = at if len(vectors) == one.count else 0
        vectors[own] = forward(values, vectors[own][:, None])[:, 0]
        work[one.bias] = one.replace_bias(work[one.bias], vectors)


def _read(one: LinearMap, at: int, values: Tensor, work: Workspace) -> None:
    """W -> W g⁻¹ for one map of a batch."""
    matrices = one.read_matrices(work[one.tensor]).clone()
    matrices[at] = backward(values, matrices[at])
    work[one.tensor] = one.replace(work[one.tensor], matrices, view="read")


def _dual(values: Tensor) -> Tensor:
    """g⁻ᵀ in the same form: what a transposed reader is multiplied by from the left."""
    if not values.is_floating_point():
        return values
    return torch.linalg.inv(values).T if values.ndim == 2 else 1 / values


def _change_shared(change: Change, group: PairGroup, work: Workspace) -> None:
    """g on the space that a pair shares: writers take g, readers g⁻¹, norms between as needed."""
    for part in (group, *change.symmetry.partners):
        _change_writers(change, part, work)
    for at in _indices(change, group, "read_index"):
        if group.read.transposed:
            _write(group.read.map, at, _dual(change.values), work)
        else:
            _read(group.read.map, at, change.values, work)


def _change_writers(change: Change, group: PairGroup, work: Workspace) -> None:
    # what crosses the norm of a latent space is an order of its dimensions
    norm = group.write_norm or group.read_norm
    scaled_norm = norm is not None and change.kind == "scaling"
    if not scaled_norm:
        for at in _indices(change, group, "write_index"):
            _write(group.write.map, at, change.values, work)
    if norm is not None:
        # A BatchNorm divides a scale out again, so its own gain takes it; an order of the
        # channels takes the statistics along.
        names = [norm.gain, norm.bias] + ([] if scaled_norm else [norm.mean, norm.variance])
        for name in names:
            if name is not None:
                work[name] = forward(change.values, work[name][:, None])[:, 0]


def _indices(change: Change, group: PairGroup, side: str) -> list[int]:
    chosen = [getattr(one, side) for at, one in enumerate(group.members)
              if shared_member(group, at) == change.symmetry.member]  # fmt: skip
    return sorted(set(chosen))


def _gains(norm: Norm | None, count: int, d: int, work: Workspace) -> Tensor | None:
    """The gains of a query or key norm, shape (count or 1, d); None where it has none."""
    if norm is None or norm.gain is None:
        return None
    gains = work[norm.gain] + norm.offset
    return gains.reshape(count if gains.numel() == count * d else 1, d)


def _check_gains(change: Change, group: PairGroup, work: Workspace) -> None:
    sides = (
        (group.query_norm, group.write.map.count, "write_index"),
        (group.key_norm, group.read.map.count, "read_index"),
    )
    for norm, count, index in sides:
        gains = _gains(norm, count, group.d, work)
        if norm is None or gains is None:
            continue
        for at in _indices(change, group, index):
            own = gains[at if len(gains) > 1 else 0].cpu()
            error = float((change.values * own - own[:, None] * change.values).abs().max())
            if error > _COMMUTES * float(own.abs().max()):
                raise InputError(
                    f"{change.name}: the matrix does not commute with the gains of {norm.name!r} "
                    f"(by {error:.2g})",
                    hint="it may mix only dimensions of equal gain; signs always commute",
                )


def _permute_heads(change: Change, group: PairGroup, work: Workspace) -> None:
    queries = change.values
    shared = key_value_heads(change.symmetry)
    keys = torch.arange(group.read.map.count)
    for place, head in enumerate(queries.tolist()):
        keys[shared[place]] = shared[head]
    orders = [(group.write, queries), (group.read, keys)]
    for part in change.symmetry.partners:
        orders += [(part.write, keys), (part.read, queries)]
    for side, order in orders:
        _permute_batch(side.map, order, work)
    for norm, order in ((group.query_norm, queries), (group.key_norm, keys)):
        for name in (norm.gain, norm.bias) if norm is not None else ():
            if name is not None and work[name].numel() == len(order) * group.d:
                vectors = work[name].reshape(len(order), group.d)[order]
                work[name] = vectors.reshape(work[name].shape)


def _permute_batch(one: LinearMap, order: Tensor, work: Workspace) -> None:
    work[one.tensor] = one.replace(
        work[one.tensor], one.write_matrices(work[one.tensor])[order].clone()
    )
    if one.bias is not None:
        vectors = one.bias_vectors(work[one.bias])
        if len(vectors) == len(order):
            work[one.bias] = one.replace_bias(work[one.bias], vectors[order].clone())


def _turn_stream(frame: Frame, q: Tensor, work: Workspace) -> None:
    """Fold the gains into the readers, then turn everything that touches the stream by q."""
    if frame.tied:
        work[frame.unembedding.tensor] = work[frame.embedding.tensor].clone()
    for norm, readers in frame.norms:
        gains = None if norm.gain is None else work[norm.gain] + norm.offset
        for one in readers:
            matrices = one.read_matrices(work[one.tensor])
            folded = matrices if gains is None else matrices * gains
            work[one.tensor] = one.replace(
                work[one.tensor], folded @ q.T.to(folded.device), view="read"
            )
        if norm.gain is not None:
            work[norm.gain] = torch.full_like(work[norm.gain], 1 - norm.offset)
    for one in (frame.embedding, *frame.writers):
        for at in range(one.count):
            shared = one.bias is not None and len(one.bias_vectors(work[one.bias])) < one.count
            _write_part(one, at, q, work, bias=not shared or at == 0)


def _write_part(one: LinearMap, at: int, q: Tensor, work: Workspace, *, bias: bool) -> None:
    """`_write`, where a bias that the whole batch shares is turned once."""
    kept = work[one.bias] if one.bias is not None and not bias else None
    _write(one, at, q, work)
    if kept is not None and one.bias is not None:
        work[one.bias] = kept
