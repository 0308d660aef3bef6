"""The change that makes a pair look perfectly aligned."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from flagscope.arch import PairGroup
from flagscope.errors import InputError
from flagscope.geometry import balancing_transform
from flagscope.reparameterize.change import Change
from flagscope.reparameterize.symmetry import Symmetry, shared_member


def balancing_change(symmetry: Symmetry, state: Mapping[str, Tensor]) -> Change:
    """The change after which both maps of a pair have the same Gram matrix.

    Raw alignment is then perfect (C = 0, ρ = 1) though the network computes what it did: under
    a freedom of all of GL(d) raw alignment says nothing of the function. Where query heads
    share a key-value head the sums of their Grams are equated.

    Parameters
    ----------
    symmetry
        Of kind "gl".
    state
        The weights.

    Raises
    ------
    InputError
        For another kind, or a pair that lacks full rank and cannot be balanced.

    References
    ----------
    Kempf and Ness, "The length of vectors in representation spaces", LNM 732 (1979).

    Examples
    --------
    >>> import torch
    >>> from flagscope.arch import build_graph
    >>> from flagscope.reparameterize import applicable
    >>> state = {"0.weight": torch.diag(torch.tensor([4.0, 1.0])), "2.weight": torch.eye(2)}
    >>> graph = build_graph({k: (2, 2) for k in state}, {"activation": "linear"})
    >>> balancing_change(applicable(graph)[0], state).values.diagonal()
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    group = symmetry.group
    if symmetry.kind != "gl" or not isinstance(group, PairGroup):
        raise InputError(
            f"{symmetry.name} cannot be balanced by an invertible matrix",
            hint="balancing is for symmetries of kind 'gl'",
        )
    for one in (group.write.map, group.read.map):
        if one.tensor not in state:
            raise InputError(
                f"the state has no tensor {one.tensor!r}", hint="pass the state dict of the graph"
            )
    members = [one for at, one in enumerate(group.members)
               if shared_member(group, at) == symmetry.member]  # fmt: skip
    write = group.write.write(state[group.write.map.tensor]).double()
    read = group.read.read(state[group.read.map.tensor]).double()
    w1 = write[sorted({one.write_index for one in members})]
    w2 = read[sorted({one.read_index for one in members})]
    a, b = (w1 @ w1.mT).sum(0), (w2.mT @ w2).sum(0)
    result = balancing_transform(a, b)
    if not bool(result.balanced):
        raise InputError(
            f"{symmetry.name}: the maps lack full rank, no invertible change balances them",
            hint="is the head dimension larger than the maps' rank?",
        )
    return Change(symmetry, result.transform)
