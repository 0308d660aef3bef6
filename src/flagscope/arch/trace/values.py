"""State of a tensor in a traced program: whose channels it holds, and what they passed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from flagscope.arch.norm import Norm
from flagscope.arch.trace.axes import Dims, channels, size_of

Degree = Literal["gl", "scaling", "permutation", "none"]
"""Changes of the channels that commute with all operations since they were written."""

ORDER: tuple[Degree, ...] = ("none", "permutation", "scaling", "gl")
Kind = Literal["linear", "right", "conv", "transposed", "embedding"]


def least(*degrees: Degree) -> Degree:
    """The largest degree of freedom that all of these allow.

    Examples
    --------
    >>> least("gl", "scaling")
    'scaling'
    """
    return min(degrees, key=ORDER.index)


@dataclass(frozen=True)
class Weight:
    """A stored tensor, or a range of its leading dimension, possibly transposed."""

    tensor: str
    shape: tuple[int, ...]
    start: int
    length: int
    transposed: bool = False


@dataclass(frozen=True)
class Use:
    """One application of a map: its weights, its input, and the norm before it."""

    kind: Kind
    weight: Weight
    bias: Weight | None
    norm: Norm | None
    reads: str
    place: str

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        weight = self.weight
        columns = self.kind in ("right", "transposed", "embedding")
        return weight.shape[1] if columns else weight.length


@dataclass(frozen=True)
class Term:
    """Channels of one map in a tensor: rows from `offset`, and the operations that they passed.

    `heads` is the number of heads if attention has mixed each head's channels over positions,
    `attended` the event at which its queries and keys were multiplied.
    """

    use: int
    offset: int = 0
    degree: Degree = "gl"
    passed: tuple[str, ...] = ()
    norm: Norm | None = None
    heads: int | None = None
    attended: int | None = None

    def through(self, degree: Degree, name: str | None = None) -> Term:
        """The channels after an operation that commutes with `degree` only."""
        again = name in self.passed and name != "norm"
        passed = (*self.passed, name) if name and not again else self.passed
        return replace(self, degree=least(self.degree, degree), passed=passed)

    @property
    def between(self) -> str:
        """The operations that they passed, in words."""
        if "norm" in self.passed:
            return "norm"
        names = [name for name in self.passed if name != "max_pool"] or list(self.passed)
        return "+".join(names) if names else "linear"


@dataclass(frozen=True)
class Value:
    """A tensor.

    Attributes
    ----------
    dims
        Dimensions; the channel factors are those of every term.
    terms
        Maps whose channels it holds; empty if that is not known.
    stream
        Whether it is a sum of several terms, which are read together.
    product
        Whether it is an elementwise product of several terms.
    norm
        The last norm applied, with no other operation since.
    scores
        The event at which the queries and keys behind it were multiplied.
    origin
        Name of the tensor before any reshapes.
    """

    dims: Dims
    terms: tuple[Term, ...] = ()
    stream: bool = False
    product: bool = False
    norm: Norm | None = None
    scores: int | None = None
    origin: str = ""

    @property
    def size(self) -> int:
        """Number of channels."""
        return size_of(channels(self.dims))

    def through(self, degree: Degree, name: str | None = None, dims: Dims | None = None) -> Value:
        """The tensor after an operation that commutes with `degree` only, and so without `norm`."""
        terms = tuple(term.through(degree, name) for term in self.terms)
        return replace(self, terms=terms, dims=dims or self.dims, norm=None, origin="")

    def laid_out(self, dims: Dims) -> Value:
        """The same entries in other dimensions."""
        return replace(self, dims=dims)
