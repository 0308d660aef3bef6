"""Maps that meet many others in one space: their eigenproblem solved once, and they let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from flagscope.diagnose.fields import MapFacts, facts_of
from flagscope.diagnose.matrices import Matrices
from flagscope.diagnose.single import single_eigensystem
from flagscope.diagnose.spectra import Eigensystem, eigensystem


@dataclass(frozen=True)
class PreparedMap:
    """One map on the space it shares with others.

    Attributes
    ----------
    facts
        Its shape, noise and norm.
    system
        Eigenvalues and eigenvectors of its Gram matrix there; None where it has a fault.
    fault
        Why it cannot be measured, or None if it can be.
    """

    facts: MapFacts
    system: Eigensystem | None
    fault: str | None


def prepared_map(again: Callable[[], Matrices], *, read: bool) -> PreparedMap:
    """Prepare a map to meet others.

    Parameters
    ----------
    again
        Gives the map, a batch of one; called once here, and again in the rare case that a number
        needs the map itself, so that it need not stay in memory. In float32 its eigensystem is
        found in single precision, with double where it matters (see `single_eigensystem`).
    read
        True for a reader, shape (1, m, d), False for a writer, shape (1, d, m).

    Examples
    --------
    >>> import torch
    >>> w = torch.tensor([[[0.0], [2.0]]], dtype=torch.float64)
    >>> map_ = Matrices(w, torch.zeros(1), torch.zeros(1))
    >>> prepared_map(lambda: map_, read=False).system.values
    tensor([[4.]], dtype=torch.float64)
    """
    maps = again()
    (fault,) = maps.faults()
    normal, exponents = maps.normalised()
    facts = facts_of(normal, exponents, read=read)

    def matrix(i: int):
        values = again().normalised()[0].values
        return (values.mT if read else values)[i]

    kept = MapFacts(
        facts.shape, facts.delta, facts.mean_square, facts.norm, facts.exponents, matrix
    )
    shared = normal.values.mT if read else normal.values
    solved = single_eigensystem if shared.dtype == torch.float32 else eigensystem
    return PreparedMap(kept, None if fault else solved(shared), fault)
