"""Changes applied to a state dict or to a live module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flagscope.errors import InputError
from flagscope.reparameterize.act import Workspace, act
from flagscope.reparameterize.change import Change


@dataclass(frozen=True, eq=False)
class Reparameterized:
    """Changed weights.

    Attributes
    ----------
    state
        The whole state dict. Tensors that no change touches are those given; the others are
        new, in the dtype and on the device of the old.
    changed
        Names of the tensors that are new.
    notes
        What else has to be done, in words: above all, tied tensors that now differ.
    """

    state: dict[str, Tensor]
    changed: tuple[str, ...]
    notes: tuple[str, ...]


def apply(
    source: nn.Module | Mapping[str, Tensor],
    changes: Change | Sequence[Change],
    *,
    in_place: bool = False,
) -> Reparameterized:
    """Change a network's weights without changing what it computes.

    Parameters
    ----------
    source
        A module or its state dict, with the names that the graph of the changes has.
    changes
        One change, or several, which are carried out in order.
    in_place
        Write the new weights into the module as well. Without it `source` is not touched.

    Returns
    -------
    Reparameterized

    Raises
    ------
    InputError
        If a tensor is missing, of another shape or quantised; if a matrix does not commute with
        the gains of a norm; if `in_place` is asked for a mapping. Nothing is written then.

    Notes
    -----
    All changes are computed in float64 and rounded once to the dtype of each tensor. In float64
    the outputs of a network move by round-off, about 1e-14 of their size. Tensors that are tied
    and differ afterwards become two parameters of the module; its config then says
    ``tie_word_embeddings = False``.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861, section 3; Ashkboos et al., arXiv 2401.15024 (SliceGPT).

    Examples
    --------
    >>> import torch
    >>> import flagscope
    >>> from flagscope.reparameterize import applicable, random_change
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> scaling, permutation = applicable(flagscope.inspect(net).graph)
    >>> change = random_change(permutation, generator=torch.Generator().manual_seed(0))
    >>> x = torch.randn(5, 3)
    >>> before = net(x)
    >>> apply(net, change, in_place=True).changed
    ('0.weight', '0.bias', '2.weight')
    >>> torch.allclose(net(x), before, atol=1e-5)
    True
    """
    listed = [changes] if isinstance(changes, Change) else list(changes)
    if not all(isinstance(one, Change) for one in listed):
        raise InputError("changes must be Change objects", hint="see random_change and Change")
    module = source if isinstance(source, nn.Module) else None
    if module is None and not isinstance(source, Mapping):
        raise InputError(
            f"cannot change a {type(source).__name__}",
            hint="give an nn.Module or a mapping of names to tensors",
        )
    if in_place and module is None:
        raise InputError(
            "in_place is for modules", hint="take .state of the result for a state dict"
        )
    given = _state(source)
    work = Workspace(given)
    for one in listed:
        act(one, work)
    return _finished(given, work.changed, module if in_place else None)


def _state(source: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = source.state_dict(keep_vars=True) if isinstance(source, nn.Module) else source
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _finished(
    given: dict[str, Tensor], changed: dict[str, Tensor], module: nn.Module | None
) -> Reparameterized:
    fresh = [name for name in changed if name not in given]
    if fresh and module is not None:
        raise InputError(
            f"the module has no tensor {fresh[0]!r}", hint="make the graph from this module"
        )
    anchor = next(iter(given.values()))
    rounded = {
        name: value.to(given.get(name, anchor).dtype).contiguous()
        for name, value in changed.items()
    }
    notes = [
        f"{name} was tied to the embedding and is now a tensor of its own: set "
        "tie_word_embeddings to false in the config"
        for name in fresh
    ]
    parted = _parted(given, rounded)
    notes += [
        f"{' and '.join(names)} were one tensor and now differ: they are no longer tied"
        + ("" if module is not None else "; load them into a model that does not tie them")
        for names in parted
    ]
    if module is not None:
        _write_module(module, given, rounded, {name for names in parted for name in names})
    plain = {name: value.detach() for name, value in given.items()}
    return Reparameterized(plain | rounded, tuple(rounded), tuple(notes))


def _parted(given: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> list[list[str]]:
    """Groups of names of one tensor, of which some now hold other values than the rest."""
    shared: dict[tuple[int, torch.Size, tuple[int, ...]], list[str]] = defaultdict(list)
    for name, value in given.items():
        if value.numel():
            shared[value.data_ptr(), value.shape, value.stride()].append(name)
    found = []
    for names in shared.values():
        if not any(name in new for name in names):
            continue
        first = new.get(names[0], given[names[0]])
        alike = all(torch.equal(new.get(name, given[name]), first) for name in names[1:])
        if not alike:
            found.append(names)
    return found


def _write_module(
    module: nn.Module, given: Mapping[str, Tensor], new: Mapping[str, Tensor], parted: set[str]
) -> None:
    with torch.no_grad():
        for name, value in new.items():
            old = given[name]
            if name not in parted:
                old.copy_(value)
                continue
            parent, _, leaf = name.rpartition(".")
            owner = module.get_submodule(parent)
            own = nn.Parameter(value, old.requires_grad) if isinstance(old, nn.Parameter) else value
            setattr(owner, leaf, own)
    config = getattr(module, "config", None)
    if parted and getattr(config, "tie_word_embeddings", False):
        config.tie_word_embeddings = False  # pyright: ignore[reportOptionalMemberAccess]
