"""One function-preserving change: where it acts and with which numbers, checked once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Num
from torch import Tensor

from flagscope.arch import PairGroup
from flagscope.errors import InputError
from flagscope.reparameterize.symmetry import Kind, Symmetry

# How far a matrix may be from its group, relative to its largest entry: the round-off of the
# few products that make a rotation in float64, with two digits to spare.
_TOLERANCE = 1e-10
# Beyond this condition of g the function is preserved to fewer than eight digits.
_CONDITION = 1e8


@dataclass(frozen=True, eq=False)
class Change:
    """A function-preserving change: one element of a symmetry's group.

    Parameters
    ----------
    symmetry
        Where it acts, one of `applicable(graph)`.
    values
        The element g, in float64: a matrix of shape (d, d) for "gl", "rotary", "norm rotation"
        and "stream"; d positive factors for "scaling", one for "query", "key" and "write scale";
        for "permutation" and "heads" d integers, of which the i-th says which old neuron or
        head comes to place i.

    Raises
    ------
    InputError
        If the values are not an element of the group.

    References
    ----------
    The pair (W1, W2) becomes (g W1, W2 g⁻¹): Xiao, Sui, Ruan, arXiv 2605.09861.

    Examples
    --------
    >>> import torch
    >>> from flagscope.arch import build_graph
    >>> from flagscope.reparameterize import applicable
    >>> graph = build_graph({"0.weight": (2, 4), "2.weight": (3, 2)}, {"activation": "relu"})
    >>> scaling, permutation = applicable(graph)
    >>> Change(scaling, torch.tensor([2.0, 0.5])).inverse().values
    tensor([0.5000, 2.0000], dtype=torch.float64)
    """

    symmetry: Symmetry
    values: Num[Tensor, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.symmetry, Symmetry) or not isinstance(self.values, Tensor):
            raise InputError(
                "a change takes a symmetry and a tensor",
                hint="symmetries come from applicable(graph)",
            )
        integers = self.kind in ("permutation", "heads")
        values = self.values.detach().to("cpu", torch.int64 if integers else torch.float64)
        object.__setattr__(self, "values", values.clone())
        self._check(integers)

    @property
    def kind(self) -> Kind:
        """The group that it belongs to."""
        return self.symmetry.kind

    @property
    def name(self) -> str:
        """Place and kind."""
        return self.symmetry.name

    def inverse(self) -> Change:
        """The change that undoes this one.

        The inverse of "stream" turns back, but gains that were folded stay folded.
        """
        if self.kind in ("permutation", "heads"):
            values = self.values.argsort()
        elif self.values.ndim < 2:
            values = 1 / self.values
        elif self.kind in ("stream", "norm rotation"):
            values = self.values.T
        else:
            values = torch.linalg.inv(self.values)
        return replace(self, values=values)

    def _check(self, integers: bool) -> None:
        d = self.symmetry.d
        shapes = {"scaling": (d,), "permutation": (d,), "heads": (d,)}
        shapes |= {"query scale": (), "key scale": (), "write scale": ()}
        shape = shapes.get(self.kind, (d, d))
        if tuple(self.values.shape) != shape:
            raise self._refused(f"values of shape {shape}", f"{tuple(self.values.shape)}")
        if integers:
            self._check_order()
        elif not bool(torch.isfinite(self.values).all()):
            raise self._refused("finite values", "NaN or infinity")
        elif self.values.ndim < 2:
            if not bool((self.values > 0).all()):
                raise self._refused("positive factors", f"{float(self.values.min())}")
        elif self.kind in ("stream", "norm rotation"):
            self._check_orthogonal()
        else:
            self._check_invertible()
        if self.kind in ("rotary", "norm rotation"):
            self._check_planes()

    def _check_order(self) -> None:
        order = self.values
        if not torch.equal(order.sort().values, torch.arange(len(order))):
            raise self._refused(f"each of 0 … {len(order) - 1} once", f"{order.tolist()[:8]}")
        if self.kind == "heads":
            shared = key_value_heads(self.symmetry)
            sources: dict[int, set[int]] = {}
            for place, head in enumerate(order.tolist()):
                sources.setdefault(shared[place], set()).add(shared[head])
            if any(len(found) > 1 for found in sources.values()):
                raise self._refused(
                    "query heads of one key-value head to stay together", f"{order.tolist()}"
                )

    def _check_orthogonal(self) -> None:
        error = (self.values @ self.values.T - torch.eye(self.symmetry.d).double()).abs().max()
        if float(error) > _TOLERANCE * self.symmetry.d:
            raise self._refused("an orthogonal matrix", f"an error of {float(error):.2g}")

    def _check_invertible(self) -> None:
        condition = float(torch.linalg.cond(self.values))
        if not condition < _CONDITION:
            raise self._refused(f"a condition below {_CONDITION:.0e}", f"{condition:.2g}")

    def _check_planes(self) -> None:
        group = self.symmetry.group
        rotary = group.rotary if isinstance(group, PairGroup) else None
        if rotary is None:
            return
        left = self.values.clone()
        for i, j in rotary.planes():
            a, b = (left[i, i] + left[j, j]) / 2, (left[j, i] - left[i, j]) / 2
            left[i, i] -= a
            left[j, j] -= a
            left[j, i] -= b
            left[i, j] += b
        left[rotary.dims :, rotary.dims :] = 0
        if float(left.abs().max()) > _TOLERANCE * float(self.values.abs().max()):
            raise self._refused(
                "a rotation and scaling of each plane of the rotary embedding, unmixed with "
                "other dimensions", f"a rest of {float(left.abs().max()):.2g}",
            )  # fmt: skip

    def _refused(self, expected: str, got: str) -> InputError:
        return InputError(
            f"{self.name}: expected {expected}, got {got}",
            hint="random_change(symmetry, generator=…) draws one that fits",
        )


def key_value_heads(symmetry: Symmetry) -> list[int]:
    """The key-value head of each query head."""
    group = symmetry.group
    if not isinstance(group, PairGroup):
        raise InputError(
            f"{symmetry.name} has no heads", hint="'heads' is a symmetry of a Q-K pair group"
        )
    shared = {member.write_index: member.read_index for member in group.members}
    return [shared[head] for head in range(len(shared))]
