"""A mapping proven by function: changes made through it that must keep a network's outputs."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flagscope.arch import Frame, Graph, LinearMap, PairGroup
from flagscope.reparameterize import Change, Symmetry, applicable, apply, random_change

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


def drawn(symmetry: Symmetry, seed: int) -> Change:
    """A random change far from those that move nothing."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        change = random_change(symmetry, generator=generator)
        if not change.values.ndim and 0.7 < float(change.values) < 1.4:
            continue
        if change.kind in ("permutation", "heads"):
            neutral = [torch.arange(symmetry.d)]
        elif change.kind == "norm rotation":  # queries and keys may both change their sign
            neutral = [torch.eye(symmetry.d), -torch.eye(symmetry.d)]
        else:
            neutral = []
        if not any(torch.equal(change.values, one.to(change.values)) for one in neutral):
            return change


def movement(after: Tensor, before: Tensor) -> float:
    """How far an output moved, relative to its norm."""
    return float((after - before).norm() / before.norm())


def change_names(graph: Graph) -> set[str]:
    """What the graph offers, as "kind between change"; the partners of a change count too."""
    return {name for one in applicable(graph) for name in _names(one)}


def _names(symmetry: Symmetry) -> list[str]:
    if isinstance(symmetry.group, Frame):
        return [symmetry.kind]
    parts = (symmetry.group, *symmetry.partners)
    return [f"{part.kind} {part.between} {symmetry.kind}" for part in parts]


def beside(change: Change, state: State, part: int = 0) -> State:
    """The same change with one writer's slice half a head, or one neuron, beside the mapping's.

    `part` counts the groups that change together: 0 is the symmetry's own, 1 its first partner.
    """
    symmetry = change.symmetry
    if symmetry.kind == "heads":  # two that trade places do so half a head beside too
        alone = replace(symmetry, partners=())
        return apply(state, replace(change, symmetry=alone)).state
    if isinstance(symmetry.group, Frame):
        return _shifted(change, state, symmetry.group.embedding, 1, part)
    if symmetry.kind == "write scale":  # no slice lies beside the whole map: all rows but one
        one = symmetry.group.write.map
        changed = apply(state, change).state
        matrices = one.write_matrices(changed[one.tensor]).clone()
        matrices[:, 0] = one.write_matrices(state[one.tensor])[:, 0]
        return changed | {one.tensor: one.replace(changed[one.tensor], matrices)}
    if symmetry.member is None and symmetry.kind in ("query scale", "key scale"):
        # nor beside all heads: the norm over all of them sees a factor on one alone
        alone = replace(symmetry, member=0)
        return apply(state, replace(change, symmetry=alone)).state
    group = (symmetry.group, *symmetry.partners)[part]
    side = group.read if symmetry.kind == "key scale" else group.write
    shift = max(1, group.d // 2) if group.members[0].head is not None else 1
    return _shifted(change, state, side.map, shift, part)


def _shifted(change: Change, state: State, one: LinearMap, shift: int, part: int) -> State:
    """The change made with copies of a writer's tensors that are shifted along its output.

    Copies, because the reader may lie in the same tensor and stays where it is. The difference
    that the change makes to a copy is shifted back and added to the stored tensor.
    """
    norm = None
    group = change.symmetry.group
    if isinstance(group, PairGroup) and change.kind == "scaling":
        norm = group.write_norm  # its gain and bias take a scale in the writer's place
    axis = next(at for at, axes in enumerate(one.groups) if one.out in axes)
    places = {one.tensor: axis, one.bias: 0}
    places |= {norm.gain: 0, norm.bias: 0} if norm is not None else {}
    named = {name: at for name, at in places.items() if name is not None}
    copies = {f"{name} beside": state[name].roll(-shift, at) for name, at in named.items()}
    changed = apply(state | copies, _renamed(change, one, set(named), part)).state
    for name, at in named.items():
        moved = changed.pop(f"{name} beside") - copies[f"{name} beside"]
        changed[name] = changed[name] + moved.roll(shift, at)
    return changed


def _renamed(change: Change, one: LinearMap, names: set[str], part: int) -> Change:
    """The change with a map, and the norm behind it, that lie in the copies."""
    symmetry = change.symmetry
    bias = one.bias and f"{one.bias} beside"
    copy = replace(one, tensor=f"{one.tensor} beside", bias=bias)
    if isinstance(symmetry.group, Frame):
        frame = replace(symmetry.group, embedding=copy)
        return replace(change, symmetry=replace(symmetry, group=frame))
    groups = [symmetry.group, *symmetry.partners]
    group, norm = groups[part], groups[part].write_norm
    if norm is not None and norm.gain in names:
        norm = replace(norm, gain=f"{norm.gain} beside", bias=norm.bias and f"{norm.bias} beside")
    key = group.read.map is one
    groups[part] = replace(
        group,
        write=group.write if key else replace(group.write, map=copy),
        read=replace(group.read, map=copy) if key else group.read,
        write_norm=norm,
    )
    shifted = replace(symmetry, group=groups[0], partners=tuple(groups[1:]))
    return replace(change, symmetry=shifted)


def assert_proven(
    graph: Graph,
    state: State,
    run: Callable[[State], Tensor],
    *,
    tolerance: float,
    each: bool = True,
) -> set[str]:
    """Every change that is open keeps the function, and the same a slice beside moves it.

    All changes are made one on top of the other, so that a single run tells of all of them; if
    it tells of an error, each is tried alone. Every kind of change of every group is then made a
    slice beside; not `each` group, but one of every name, where a run is dear.

    Returns the names of the changes, as `change_names` has them.
    """
    reference = run(state)
    changes = [drawn(one, 100 + number) for number, one in enumerate(applicable(graph))]
    places = [group.name for one in changes for group in _groups(one.symmetry)]
    assert {one.name for one in graph.pairs if one.freedom not in ("none", "outer")} <= set(places)
    result = apply(state, changes)
    for one in changes:
        assert apply(state, one).changed, one.name
    kept = movement(run(result.state), reference)
    if not kept < tolerance:
        alone = {one.name: movement(run(apply(state, one).state), reference) for one in changes}
        raise AssertionError((kept, {k: v for k, v in alone.items() if not v < tolerance} or alone))
    last = {(one.symmetry.group.name if each and isinstance(one.symmetry.group, PairGroup)
             else _names(one.symmetry)[0], one.kind): one for one in changes}  # fmt: skip
    for one in last.values():
        # heads of values trade places with the outputs: theirs is one change with the queries'
        parts = 1 if one.kind == "heads" else len(_groups(one.symmetry)) or 1
        for part in range(parts):
            moved = movement(run(beside(one, state, part)), reference)
            assert moved > 1e-3, (one.name, part, moved)
    return change_names(graph)


def _groups(symmetry: Symmetry) -> tuple[PairGroup, ...]:
    own = (symmetry.group,) if isinstance(symmetry.group, PairGroup) else ()
    return (*own, *symmetry.partners)


def assert_heads_proven(graph: Graph) -> None:
    """Head spaces use the very maps of the pairs, on the side that faces the stream."""
    sides = [(group, side) for group in graph.pairs for side in (group.write, group.read)]
    for heads in graph.heads:
        group = next(group for group, side in sides if side.map is heads.map)
        stream = heads.map.outputs if heads.space == "o" else heads.map.inputs
        assert heads.d == stream
        assert heads.count == heads.map.count
        assert heads.rank == min(group.d, stream)
