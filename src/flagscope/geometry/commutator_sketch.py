"""The commutator of two Gram matrices from a few products, with a standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.errors import InputError

# X -> A X for a symmetric d x d matrix A, X of shape (d, k).
Operator = Callable[[Tensor], Tensor]

# Directions taken exactly, probes of the first round, and probes in all.
_BASIS, _FIRST, _MOST = 32, 64, 512
# Relative standard error of both estimates at which no further probe is drawn.
_GOAL = 0.01
# Round-off of one estimate, relative to it, in units of ε√d.
_ROUNDING = 10
# Twice the round-off of [A, B] X, relative to A B X, in units of ε; of any d from 100 to 1,500.
_CANCELLED = 4


@dataclass(frozen=True)
class CommutatorSketch:
    """Estimates of ‖[A, B]‖_F², ‖AB‖_F² and of ν, half their ratio.

    Attributes
    ----------
    commutator, product
        ‖AB - BA‖_F² and ‖AB‖_F².
    defect
        ν = ‖[A, B]‖² / (2 ‖AB‖²); NaN where AB is zero.
    commutator_error, defect_error
        Standard errors, round-off included.
    degrees
        Degrees of freedom of the errors, for Student's t; 0 where every direction was taken and
        nothing but round-off is left.
    """

    commutator: float
    product: float
    defect: float
    commutator_error: float
    defect_error: float
    degrees: int


def sketched_commutator(
    a: Operator,
    b: Operator,
    d: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    goal: float = _GOAL,
    most: int = _MOST,
) -> CommutatorSketch:
    """Estimate the commutator of two symmetric d x d matrices from their products with few vectors.

    With an orthonormal basis Q of a few directions in which K = [A, B] is large and orthonormal
    vectors x_1 … x_k that are uniformly random in the complement,
    ‖K‖² = ‖KQ‖² + (d - m)/k Σ‖K x_j‖² in expectation: the first term is exact, and the spread of
    the second is known from its terms. After a first round of 64 probes as many more are drawn as
    the relative error `goal` asks for, up to `most`.

    Parameters
    ----------
    a, b
        Products with A and B. For C and ν these are the trace-free parts of two Gram matrices.
    d
        Their dimension.
    generator
        Of the random vectors.
    dtype, device
        Of the vectors that `a` and `b` are given.
    goal
        Relative standard error that is aimed at, for both ‖[A, B]‖² and ν.
    most
        Largest number of probes.

    Returns
    -------
    CommutatorSketch

    Raises
    ------
    InputError
        If `d` or `most` is not positive, or `goal` is negative.

    Notes
    -----
    Work: four products with a d x d matrix for each vector, of which there are 32 + 32 + k. The
    probes are drawn without replacement, so the error holds the factor √(1 - k/(d - m)). The second
    round is sized by the first, as in Stein's two-stage procedure.

    References
    ----------
    R. A. Meyer, C. Musco, C. Musco and D. P. Woodruff, Hutch++: optimal stochastic trace
    estimation, SOSA 2021, 142-155; W. G. Cochran, Sampling Techniques (1977), section 2.6, for the
    finite population, and 6.4 for the error of a ratio.

    Examples
    --------
    >>> x = torch.diag(torch.arange(200.0))
    >>> y = torch.ones(200, 200)
    >>> sketch = sketched_commutator(
    ...     lambda v: x @ v, lambda v: y @ v, 200, generator=torch.Generator().manual_seed(0)
    ... )
    >>> exact = float((x @ y - y @ x).double().square().sum())
    >>> abs(sketch.commutator / exact - 1) < 1e-5
    True
    """
    if d < 1 or most < 1 or not goal >= 0:
        raise InputError(
            f"d = {d}, most = {most} and goal = {goal} do not describe a sketch",
            hint="give positive numbers",
        )
    draw = _Draws(d, generator, dtype, torch.device(device))
    leading = _images(a, b, draw.block(min(_BASIS, d)))[0]
    basis = draw.fixed(leading)
    known = _squares(*_images(a, b, basis))
    rest = d - basis.shape[1]
    count = min(rest, _FIRST, most)
    commutators, products = _squares(*_images(a, b, draw.probes(count)))
    first = _estimate(known, commutators, products, rest)
    wanted = _wanted(first, count, rest, goal)
    more = min(wanted, most, rest) - count
    if more > 0:
        new = _squares(*_images(a, b, draw.probes(more)))
        commutators, products = torch.cat([commutators, new[0]]), torch.cat([products, new[1]])
    estimate = _estimate(known, commutators, products, rest)
    return _with_rounding(estimate, d, dtype, min(len(commutators), rest), rest)


class _Draws:
    """Orthonormal random vectors, each orthogonal to all that were drawn before."""

    def __init__(
        self, d: int, generator: torch.Generator, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.d, self.generator, self.dtype, self.device = d, generator, dtype, device
        self.taken = torch.zeros(d, 0, dtype=dtype, device=device)

    def block(self, count: int) -> Float[Tensor, "d k"]:
        drawn = torch.randn(self.d, count, generator=self.generator, dtype=torch.float64)
        return drawn.to(self.device, self.dtype)

    def fixed(self, vectors: Float[Tensor, "d k"]) -> Float[Tensor, "d m"]:
        """An orthonormal basis of these vectors, which later ones avoid."""
        scale = torch.linalg.vector_norm(vectors, dim=0).amax()
        basis, triangle = torch.linalg.qr(vectors / torch.where(scale > 0, scale, 1))
        size = triangle.diagonal().abs()
        floor = 100 * self.d**0.5 * torch.finfo(self.dtype).eps * size.amax().clamp_min(1e-30)
        return self._kept(basis[:, size > floor])

    def probes(self, count: int) -> Float[Tensor, "d k"]:
        """Orthonormal vectors, uniform in the complement of those before."""
        vectors = self.block(count)
        for _ in range(2):  # twice is enough
            vectors = vectors - self.taken @ (self.taken.mT @ vectors)
            vectors = torch.linalg.qr(vectors)[0]
        return self._kept(vectors)

    def _kept(self, vectors: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
        self.taken = torch.cat([self.taken, vectors], dim=1)
        return vectors


def _images(a: Operator, b: Operator, x: Float[Tensor, "d k"]) -> tuple[Tensor, Tensor]:
    """[A, B] X and A B X."""
    product = a(b(x))
    return product - b(a(x)), product


def _squares(
    commutator: Float[Tensor, "d k"], product: Float[Tensor, "d k"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """Squared lengths of the columns, in float64."""
    return commutator.double().square().sum(0), product.double().square().sum(0)


@dataclass(frozen=True)
class _Estimate:
    commutator: float
    product: float
    commutator_error: float
    defect_error: float

    @property
    def defect(self) -> float:
        return self.commutator / (2 * self.product) if self.product > 0 else math.nan

    def excess(self, goal: float) -> float:
        """The larger relative error, in units of the goal."""
        relative = [
            error / value
            for error, value in (
                (self.commutator_error, self.commutator),
                (self.defect_error, self.defect),
            )
            if value > 0
        ]
        return max(relative, default=0.0) / goal if goal > 0 else math.inf


def _estimate(
    known: tuple[Tensor, Tensor], commutators: Tensor, products: Tensor, rest: int
) -> _Estimate:
    count = len(commutators)
    commutator, product = (float(values.sum()) for values in known)
    if count == 0:
        return _Estimate(commutator, product, 0.0, 0.0)
    commutator += rest * float(commutators.mean())
    product += rest * float(products.mean())
    if count < 2 or count >= rest:
        return _Estimate(commutator, product, 0.0 if count >= rest else math.inf, 0.0)
    scale = rest * math.sqrt((1 - count / rest) / count)
    ratio = commutator / product if product > 0 else 0.0
    defect = float((commutators - ratio * products).std()) / (2 * product) if product > 0 else 0.0
    return _Estimate(commutator, product, scale * float(commutators.std()), scale * defect)


def _wanted(first: _Estimate, count: int, rest: int, goal: float) -> int:
    """Probes that the goal takes, by the spread in the first round."""
    excess = first.excess(goal)
    if excess <= 1:
        return count
    if not math.isfinite(excess):
        return rest
    # The error of n of N without replacement goes with 1/n - 1/N.
    return math.ceil(1 / ((1 / count - 1 / rest) / excess**2 + 1 / rest))


def _with_rounding(
    estimate: _Estimate, d: int, dtype: torch.dtype, count: int, rest: int
) -> CommutatorSketch:
    eps = torch.finfo(dtype).eps
    floor = _ROUNDING * eps * math.sqrt(d)
    # What is left of ‖[A, B]‖² where the matrices commute, over ‖AB‖².
    least = (_CANCELLED * eps) ** 2
    defect = estimate.defect
    return CommutatorSketch(
        estimate.commutator,
        estimate.product,
        defect,
        max(estimate.commutator_error, floor * estimate.commutator, least * estimate.product),
        max(estimate.defect_error, floor * defect, least / 2) if defect == defect else 0.0,
        0 if count >= rest else count - 1,
    )
