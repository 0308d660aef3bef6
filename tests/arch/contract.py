"""Function-preserving changes applied through a mapping, to prove the mapping by function."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flagscope.arch import Graph, LinearMap, Norm, PairGroup

State = dict[str, Tensor]


class Float64(TorchFunctionMode):
    """Lifts the casts to float32 that stock norms, softmax and rotary code make."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        lift = {torch.float32: torch.float64}
        args = [lift.get(a, a) if isinstance(a, torch.dtype) else a for a in args]
        kwargs = {
            k: lift.get(v, v) if isinstance(v, torch.dtype) else v
            for k, v in (kwargs or {}).items()
        }
        return func(*args, **kwargs)


def randomise(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every weight, bias, gain and statistic away from its special initial value; float64."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=generator)
            elif value.dtype == torch.float64 and "inv_freq" not in name:
                noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
                norm = value.ndim == 1 and name.endswith("weight")
                value.copy_(1 + 0.3 * noise if norm else 0.35 * noise)
    return module


def general_linear(d: int, generator: torch.Generator) -> Tensor:
    """A well-conditioned member of GL(d), far from orthogonal."""
    shear = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.eye(d, dtype=torch.float64) * 1.5 + 0.5 * shear / d**0.5


def rotary_commutant(group: PairGroup, generator: torch.Generator) -> Tensor:
    """A rotation and scaling of each frequency plane, any of GL on the unturned dimensions."""
    assert group.rotary is not None
    change = torch.zeros(group.d, group.d, dtype=torch.float64)
    for i, j in group.rotary.planes():
        a, b = 0.5 + torch.rand(2, generator=generator, dtype=torch.float64)
        change[i, i] = change[j, j] = a
        change[i, j], change[j, i] = -b, b
    turned = group.rotary.dims
    change[turned:, turned:] = general_linear(group.d - turned, generator)
    return change


def permutation(d: int, generator: torch.Generator) -> Tensor:
    """A permutation without fixed points for the first two neurons."""
    return torch.eye(d, dtype=torch.float64)[torch.randperm(d, generator=generator).roll(1)]


def scaling(d: int, generator: torch.Generator) -> Tensor:
    """Positive scales between a half and two."""
    return torch.diag(0.5 + 1.5 * torch.rand(d, generator=generator, dtype=torch.float64))


def left(one: LinearMap, state: Mapping[str, Tensor], at: int, g: Tensor, shift: int = 0) -> State:
    """W -> gW and b -> gb for one map of a batch; by `shift` places off along the output."""
    stored = state[one.tensor]
    axis = _axis(one, one.out)
    moved = stored.roll(-shift, axis)
    matrices = one.write_matrices(moved).clone()
    matrices[at] = g @ matrices[at]
    changed = {one.tensor: one.replace(moved, matrices).roll(shift, axis)}
    if one.bias is not None:
        bias = state[one.bias]
        vectors = one.bias_vectors(bias.roll(-shift)).clone()
        vectors[at] = g @ vectors[at]
        changed[one.bias] = one.replace_bias(bias.roll(-shift), vectors).roll(shift)
    return changed


def right(one: LinearMap, state: Mapping[str, Tensor], at: int, g: Tensor) -> State:
    """W -> Wg for one map of a batch."""
    matrices = one.read_matrices(state[one.tensor]).clone()
    matrices[at] = matrices[at] @ g
    return {one.tensor: one.replace(state[one.tensor], matrices, view="read")}


def _axis(one: LinearMap, name: str) -> int:
    return next(axis for axis, group in enumerate(one.groups) if name in group)


def change_shared(
    group: PairGroup, state: State, g: Tensor, kv_head: int | None, shift: int = 0
) -> State:
    """g on the space that a pair shares, for the members of one key-value head (or all).

    `shift` takes the write side's slice that many places beside where the mapping says.
    """
    members = [m for m in group.members if m.kv_head == kv_head]
    changed = dict(state)
    for at in sorted({m.write_index for m in members}):
        changed |= left(group.write.map, changed, at, g, shift)
    for at in sorted({m.read_index for m in members}):
        inverse = torch.linalg.inv(g)
        if group.read.transposed:
            changed |= left(group.read.map, changed, at, inverse.T)
        else:
            changed |= right(group.read.map, changed, at, inverse)
    return changed


def change_norm(norm: Norm, state: State, g: Tensor, *, statistics: bool) -> State:
    """g (diagonal or a permutation) on the channels behind a BatchNorm."""
    names = [norm.gain, norm.bias, *([norm.mean, norm.variance] if statistics else [])]
    return {name: g @ state[name] for name in names if name is not None}


def applicable(
    graph: Graph, group: PairGroup, seed: int, *, norm_over_heads: bool = False
) -> dict[str, Callable[[State, int], State]]:
    """The changes that a pair's freedom allows, by name; each takes a state and a shift."""
    generator = torch.Generator().manual_seed(seed)
    kv_head = group.members[-1].kv_head
    changes: dict[str, Change] = {}
    if group.freedom == "gl":
        g = general_linear(group.d, generator)
        changes["gl"] = lambda state, shift: change_shared(group, state, g, kv_head, shift)
    if group.freedom == "rotary":
        r = rotary_commutant(group, generator)
        changes["rotary"] = lambda state, shift: change_shared(group, state, r, kv_head, shift)
    if group.kind == "latent" and group.read_norm is not None:
        p = permutation(group.d, generator)
        changes["permutation"] = lambda state, shift: across_norm(group, state, p, shift)
    if group.between == "norm" and group.kind == "qk":
        last = group.members[-1]
        triple = 3 * torch.eye(group.d, dtype=torch.float64)
        for name, side, at in (
            ("query scale", group.write, last.write_index),
            ("key scale", group.read, last.read_index),
        ):
            heads = range(side.map.count) if norm_over_heads else [at]
            changes[name] = lambda state, shift, side=side, heads=heads: scaled_heads(
                side.map, state, heads, triple, shift
            )
    if group.freedom == "permutation" and group.kind in ("qk", "ov"):
        q = permutation(group.d, generator)
        changes["permutation"] = lambda state, shift: change_shared(group, state, q, kv_head, shift)
    if group.freedom == "scaling":
        diagonal = scaling(group.d, generator)
        changes["scaling"] = lambda state, shift: across(group, state, diagonal, shift)
    if group.freedom in ("scaling", "permutation") and group.kind in ("mlp", "conv", "sequential"):
        p = permutation(group.d, generator)
        companions = [
            other
            for other in graph.pairs
            if other is not group and other.read.map.tensor == group.read.map.tensor
        ]
        changes["permutation"] = lambda state, shift: across(group, state, p, shift, companions)
    return changes


def scaled_heads(one: LinearMap, state: State, heads, g: Tensor, shift: int) -> State:
    """g on the output of some heads; the slices of all of them together shifted off by one map."""
    changed = dict(state)
    if shift and len(heads) == one.count > 1:  # all heads but one: the norm over all sees that
        heads, shift = heads[1:], 0
    for at in heads:
        changed |= left(one, changed, at, g, shift)
    return changed


def across_norm(group: PairGroup, state: State, p: Tensor, shift: int) -> State:
    """A permutation of the space in which a norm stands, its gain included."""
    norm = group.read_norm
    assert norm is not None
    changed = state | left(group.write.map, state, 0, p, shift)
    changed |= change_norm(norm, changed, p, statistics=False)
    return changed | right(group.read.map, changed, 0, torch.linalg.inv(p))


def across(
    group: PairGroup, state: State, g: Tensor, shift: int, companions: list[PairGroup] | None = None
) -> State:
    """g across an activation; a BatchNorm between takes a scaling into its gain."""
    changed = dict(state)
    permuted = companions is not None
    at, heard = group.members[-1].write_index, group.members[-1].read_index
    if group.write_norm is None or permuted:
        changed |= left(group.write.map, changed, at, g, shift)
    if group.write_norm is not None:
        norm = change_norm(group.write_norm, changed, g, statistics=permuted)
        rolled = {k: v.roll(shift) for k, v in norm.items()} if not permuted else norm
        changed |= rolled
    for other in companions or []:
        changed |= left(other.write.map, changed, at, g)
    return changed | right(group.read.map, changed, heard, torch.linalg.inv(g))


def assert_proven(
    graph: Graph,
    state: State,
    run: Callable[[State], Tensor],
    *,
    tolerance: float,
    norm_over_heads: bool = False,
) -> set[str]:
    """Each pair's changes keep the function, and those a slice beside move it.

    Returns the names of the changes that were made, as "kind between change".
    """
    reference = run(state)
    scale = reference.abs().max()
    done = set()
    for number, group in enumerate(graph.pairs):
        changes = applicable(graph, group, seed=100 + number, norm_over_heads=norm_over_heads)
        assert changes or group.freedom == "none", group.name
        for name, change in changes.items():
            kept = (run(change(state, 0)) - reference).abs().max() / scale
            assert kept < tolerance, (group.name, name, float(kept))
            # half a head, or one neuron, beside where the mapping says
            shift = max(1, group.d // 2) if group.members[0].head is not None else 1
            moved = (run(change(state, shift)) - reference).abs().max() / scale
            assert moved > 1e-3, (group.name, name, float(moved))
            done.add(f"{group.kind} {group.between} {name}")
    return done


def assert_heads_proven(graph: Graph) -> None:
    """Head spaces use the very maps of the pairs, on the side that faces the stream."""
    sides = [(group, side) for group in graph.pairs for side in (group.write, group.read)]
    for heads in graph.heads:
        group = next(group for group, side in sides if side.map is heads.map)
        stream = heads.map.outputs if heads.space == "o" else heads.map.inputs
        assert heads.d == stream
        assert heads.count == heads.map.count
        assert heads.rank == min(group.d, stream)
