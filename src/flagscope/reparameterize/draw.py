"""Changes drawn at random."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import PairGroup
from flagscope.errors import InputError
from flagscope.null import haar_bases
from flagscope.reparameterize.change import Change, key_value_heads
from flagscope.reparameterize.symmetry import Symmetry


def random_change(symmetry: Symmetry, *, generator: torch.Generator) -> Change:
    """A random change, well conditioned and far from trivial.

    Parameters
    ----------
    symmetry
        One of `applicable(graph)`.
    generator
        A seeded generator on the CPU.

    Notes
    -----
    "gl": 1.5 I + 0.5 Z/√d with normal Z, condition of a few units. Scales: uniform in [½, 2].
    Rotations: Haar, see `haar_bases`. Planes: independent coefficients of aI + bJ in [½, 1½]. "norm
    rotation": signs, the same on both dimensions of a plane, since these commute with any gains.

    Examples
    --------
    >>> import torch
    >>> from flagscope.arch import build_graph
    >>> from flagscope.reparameterize import applicable
    >>> graph = build_graph({"0.weight": (4, 4), "2.weight": (3, 4)}, {"activation": "gelu"})
    >>> generator = torch.Generator().manual_seed(0)
    >>> random_change(applicable(graph)[0], generator=generator).values
    tensor([0, 1, 3, 2])
    """
    if not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator must be a torch.Generator, got {type(generator).__name__}",
            hint="torch.Generator().manual_seed(0)",
        )
    return Change(symmetry, _drawn(symmetry, generator))


def _drawn(symmetry: Symmetry, generator: torch.Generator) -> Tensor:
    d, group = symmetry.d, symmetry.group
    rotary = group.rotary if isinstance(group, PairGroup) else None
    if symmetry.kind == "permutation":
        return torch.randperm(d, generator=generator)
    if symmetry.kind == "heads":
        return _head_order(key_value_heads(symmetry), generator)
    if symmetry.kind in ("scaling", "query scale", "key scale", "write scale"):
        shape = (d,) if symmetry.kind == "scaling" else ()
        return 0.5 + 1.5 * torch.rand(shape, generator=generator, dtype=torch.float64)
    if symmetry.kind == "stream":
        return haar_bases(torch.randn(d, d, generator=generator, dtype=torch.float64))
    if symmetry.kind == "norm rotation":
        signs = torch.randint(0, 2, (d,), generator=generator) * 2.0 - 1
        for i, j in rotary.planes() if rotary else ():
            signs[j] = signs[i]
        return torch.diag(signs.double())
    if rotary is None:
        return _general(d, generator)
    change = torch.zeros(d, d, dtype=torch.float64)
    for i, j in rotary.planes():
        a, b = 0.5 + torch.rand(2, generator=generator, dtype=torch.float64)
        change[i, i] = change[j, j] = a
        change[i, j], change[j, i] = -b, b
    change[rotary.dims :, rotary.dims :] = _general(d - rotary.dims, generator)
    return change


def _general(d: int, generator: torch.Generator) -> Float[Tensor, "d d"]:
    noise = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return 1.5 * torch.eye(d, dtype=torch.float64) + 0.5 * noise / max(d, 1) ** 0.5


def _head_order(shared: list[int], generator: torch.Generator) -> Tensor:
    """Key-value heads in a random order, and the query heads of each in a random order."""
    groups = [[h for h, g in enumerate(shared) if g == one] for one in sorted(set(shared))]
    places = [head for one in groups for head in one]
    order = torch.empty(len(shared), dtype=torch.int64)
    drawn: list[int] = []
    for at in torch.randperm(len(groups), generator=generator).tolist():
        within = torch.randperm(len(groups[at]), generator=generator).tolist()
        drawn += [groups[at][one] for one in within]
    order[places] = torch.tensor(drawn)
    return order
