"""The observables by their most direct formulas, to check the library against.

Slow on purpose and independent of ``flagscope``: numpy and scipy in float64, full singular value
decompositions, explicit d x d Grams, explicit projectors and commutators, no rearrangement of any
formula. A pair is (w1, w2) with w1 of shape (d, d_in) and w2 of shape (d_out, d), maps acting on
columns. Sections are those of the specification. Nothing here guards against undefined cases (a
Gram that is a multiple of the identity, d = 1): numpy then divides by zero and says so.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import scipy.linalg
import scipy.special
import scipy.stats
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.floating]


# Singular spaces and ranks (sections 1 and 5)


def left_space(w: Matrix, rank: int) -> Matrix:
    """Orthonormal basis (d, rank) of the top left singular space of w: its write space."""
    return np.linalg.svd(w, full_matrices=False)[0][:, :rank]


def right_space(w: Matrix, rank: int) -> Matrix:
    """Orthonormal basis (d, rank) of the top right singular space of w: its read space."""
    return np.linalg.svd(w, full_matrices=False)[2][:rank].T


def participation_ratio(w: Matrix) -> float:
    """(sum s^2)^2 / sum s^4 over the singular values s of w."""
    power = np.linalg.svd(w, compute_uv=False) ** 2
    return float(power.sum() ** 2 / (power**2).sum())


def effective_rank(w: Matrix) -> int:
    """Participation ratio, rounded, at least 1."""
    return max(1, round(participation_ratio(w)))


def projector(basis: Matrix) -> Matrix:
    """Orthogonal projector (d, d) on the span of the orthonormal columns of basis."""
    return basis @ basis.T


# Relative position of two subspaces (sections 2, 3 and 5)


def principal_cosines(v: Matrix, u: Matrix) -> Vector:
    """Cosines of the min(r1, r2) principal angles between span(v) and span(u), descending."""
    return np.cos(scipy.linalg.subspace_angles(v, u))[::-1]


def principal_sines(v: Matrix, u: Matrix) -> Vector:
    """Singular values of (I - P_U) V, ascending: r1 of them, each accurate near 0."""
    residual = (np.eye(len(u)) - projector(u)) @ v
    return np.linalg.svd(residual, compute_uv=False)[::-1]


def intersection_dimension(v: Matrix, u: Matrix, tolerance: float) -> int:
    """Number of principal sines at or below the tolerance (section 5)."""
    return int((principal_sines(v, u) <= tolerance).sum())


def total_overlap(v: Matrix, u: Matrix) -> float:
    """Sum of the squared principal cosines."""
    return float((principal_cosines(v, u) ** 2).sum())


def flag_defect(v: Matrix, u: Matrix) -> float:
    """r1 - sum cos^2: 0 exactly where span(v) lies in span(u) (section 3)."""
    return v.shape[1] - total_overlap(v, u)


def overlap_ratio(
    w1: Matrix, w2: Matrix, rank1: int | None = None, rank2: int | None = None
) -> float:
    """Overlap of the write and read space over its Haar mean; effective ranks unless given."""
    r1 = effective_rank(w1) if rank1 is None else rank1
    r2 = effective_rank(w2) if rank2 is None else rank2
    d = w1.shape[0]
    return total_overlap(left_space(w1, r1), right_space(w2, r2)) / (r1 * r2 / d)


def haar_overlap_mean(d: int, p: int, q: int) -> float:
    """Mean of sum cos^2 between Haar subspaces of dimensions p and q (section 5)."""
    return p * q / d


def haar_overlap_variance(d: int, p: int, q: int) -> float:
    """Variance of sum cos^2 between Haar subspaces of dimensions p and q (section 5)."""
    return 2 * p * q * (d - p) * (d - q) / (d**2 * (d - 1) * (d + 2))


def incidence_surface(left: Matrix, right: Matrix) -> Matrix:
    """S(i, j) = ||P_{V_i} P_{U_j}||^2 at [i - 1, j - 1], projector by projector (section 2)."""
    surface = np.empty((left.shape[1], right.shape[1]))
    for i in range(1, left.shape[1] + 1):
        for j in range(1, right.shape[1] + 1):
            product = projector(left[:, :i]) @ projector(right[:, :j])
            surface[i - 1, j - 1] = np.linalg.norm(product) ** 2
    return surface


def orbit_dimension(v: Matrix, u: Matrix) -> int:
    """Dimension of the GL(d)-orbit of (span v, span u): rank of the infinitesimal action of gl(d).

    The tangent vector of X in gl(d) at a subspace with basis v is (I - P) X v (section 2).
    """
    d = v.shape[0]
    tangents = []
    for entry in range(d * d):
        x = np.zeros(d * d)
        x[entry] = 1.0
        x = x.reshape(d, d)
        moved = [(np.eye(d) - projector(basis)) @ x @ basis for basis in (v, u)]
        tangents.append(np.concatenate([m.ravel() for m in moved]))
    return int(np.linalg.matrix_rank(np.array(tangents), tol=1e-8))


# Grams of a pair (sections 1 and 3)


def write_gram(w1: Matrix) -> Matrix:
    """A = W1 W1^T, (d, d)."""
    return w1 @ w1.T


def read_gram(w2: Matrix) -> Matrix:
    """B = W2^T W2, (d, d)."""
    return w2.T @ w2


def traceless(gram: Matrix) -> Matrix:
    """The Gram less (trace / d) times the identity."""
    d = len(gram)
    return gram - np.trace(gram) / d * np.eye(d)


def gram_commutator_ratio(a: Matrix, b: Matrix) -> float:
    """C of two Grams: ||[A, B]||^2 over its Haar mean (sections 3 and 5)."""
    d = len(a)
    commutator = a @ b - b @ a
    squares = np.linalg.norm(traceless(a)) ** 2 * np.linalg.norm(traceless(b)) ** 2
    haar_mean = 2 * d * squares / ((d - 1) * (d + 2))
    return float(np.linalg.norm(commutator) ** 2 / haar_mean)


def commutator_ratio(w1: Matrix, w2: Matrix) -> float:
    """C of the pair: 0 for aligned and for orthogonal ranges, Haar mean 1 (section 3)."""
    return gram_commutator_ratio(write_gram(w1), read_gram(w2))


def gram_correlation(w1: Matrix, w2: Matrix) -> float:
    """rho: cosine between the trace-centred Grams, in [-1, 1] (section 3)."""
    a, b = traceless(write_gram(w1)), traceless(read_gram(w2))
    return float(np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def gram_correlation_z(w1: Matrix, w2: Matrix) -> float:
    """rho in Haar standard deviations, from the variance of section 5."""
    d = w1.shape[0]
    return gram_correlation(w1, w2) / np.sqrt(2 / ((d - 1) * (d + 2)))


def commutation_defect(w1: Matrix, w2: Matrix) -> float:
    """nu = ||[A~, B~]||^2 / (2 ||A~ B~||^2), in [0, 2] (section 3)."""
    a, b = traceless(write_gram(w1)), traceless(read_gram(w2))
    product = a @ b
    return float(np.linalg.norm(product - b @ a) ** 2 / (2 * np.linalg.norm(product) ** 2))


def imbalance(w1: Matrix, w2: Matrix) -> float:
    """||A - B|| / (||A|| + ||B||), 0 at a balanced point (section 3)."""
    a, b = write_gram(w1), read_gram(w2)
    return float(np.linalg.norm(a - b) / (np.linalg.norm(a) + np.linalg.norm(b)))


def kernel_intersection(w1: Matrix, w2: Matrix) -> int:
    """dim(col W1 meet ker W2) = rank W1 - rank(W2 W1) (section 3).

    The product carries rounding errors of the size of its factors: where it vanishes, a tolerance
    relative to its own norm would count them as rank.
    """
    scale = np.linalg.norm(w1, 2) * np.linalg.norm(w2, 2)
    tolerance = max(*w1.shape, *w2.shape) * np.finfo(np.float64).eps * scale
    return int(np.linalg.matrix_rank(w1) - np.linalg.matrix_rank(w2 @ w1, tol=tolerance))


# Gauge (section 2)


def symmetric_power(gram: Matrix, power: float) -> Matrix:
    """Power of a symmetric positive definite matrix."""
    values, vectors = np.linalg.eigh(gram)
    return vectors @ np.diag(values**power) @ vectors.T


def balancing_gauge(w1: Matrix, w2: Matrix) -> Matrix:
    """The g = S^{1/2} of section 2, for which (g W1, W2 g^{-1}) has A = B; full rank d only."""
    a, b = write_gram(w1), read_gram(w2)
    root, inverse_root = symmetric_power(a, 0.5), symmetric_power(a, -0.5)
    s = inverse_root @ symmetric_power(root @ b @ root, 0.5) @ inverse_root
    return symmetric_power((s + s.T) / 2, 0.5)


def balanced(w1: Matrix, w2: Matrix) -> tuple[Matrix, Matrix]:
    """The pair in its GL(d)-balanced gauge: same W2 W1, A = B (section 2)."""
    g = balancing_gauge(w1, w2)
    return g @ w1, w2 @ np.linalg.inv(g)


def neuron_balanced(w1: Matrix, w2: Matrix) -> tuple[Matrix, Matrix]:
    """The pair after the positive neuron scalings that make diag A = diag B (section 2)."""
    scale = (np.diag(read_gram(w2)) / np.diag(write_gram(w1))) ** 0.25
    return np.diag(scale) @ w1, w2 @ np.diag(1 / scale)


# Heads (sections 3 and 5); every head is an orthonormal basis (d, r_h) in the stream R^d


def pairwise_head_overlaps(heads: Sequence[Matrix]) -> Matrix:
    """||Q_i^T Q_j||^2 / (r_i r_j / d) for all i, j; the diagonal is d / r_i."""
    d = heads[0].shape[0]
    ratios = np.empty((len(heads), len(heads)))
    for i, p in enumerate(heads):
        for j, q in enumerate(heads):
            ratios[i, j] = np.linalg.norm(p.T @ q) ** 2 / (p.shape[1] * q.shape[1] / d)
    return ratios


def head_overlap_ratio(heads: Sequence[Matrix]) -> float:
    """R: mean of the pairwise overlaps over pairs of different heads."""
    overlaps = pairwise_head_overlaps(heads)
    return float(np.mean([overlaps[i, j] for i, j in combinations(range(len(heads)), 2)]))


def head_overlap_z(heads: Sequence[Matrix]) -> float:
    """(R - 1) over its Haar standard deviation; head pairs are pairwise independent (section 5)."""
    d = heads[0].shape[0]
    variances = [
        haar_overlap_variance(d, p, q) / haar_overlap_mean(d, p, q) ** 2
        for p, q in combinations([head.shape[1] for head in heads], 2)
    ]
    return (head_overlap_ratio(heads) - 1) / np.sqrt(np.mean(variances) / len(variances))


def projector_sum_spectrum(heads: Sequence[Matrix]) -> Vector:
    """Eigenvalues of the sum of the heads' projectors, descending, all d of them."""
    d = heads[0].shape[0]
    return np.linalg.eigvalsh(sum((projector(head) for head in heads), np.zeros((d, d))))[::-1]


def projector_sum_threshold(d: int, rank: int, count: int, quantile: float = 2.02) -> float:
    """Upper edge plus quantile times sigma for Haar heads of one rank; 2.02 is 1 % (section 5)."""
    t = rank / d
    upper = (np.sqrt(1 - t) + np.sqrt(t * (count - 1))) ** 2
    lower = (np.sqrt(1 - t) - np.sqrt(t * (count - 1))) ** 2
    sigma = (2 * upper * (count - upper) / (count * d * np.sqrt(upper - lower))) ** (2 / 3)
    return float(upper + quantile * sigma)


# The tests of a pair (section 7)

RankPair = tuple[int, int]
Law = Callable[[float, int, int, int], float]


def equilibrated(w: Matrix, passes: int = 200) -> Matrix:
    """w without its zero rows and columns, those left scaled by turns to mean square 1."""
    w = w[(w != 0).any(1)][:, (w != 0).any(0)]
    for _ in range(passes):
        w = w / np.sqrt((w**2).mean(1, keepdims=True))
        w = w / np.sqrt((w**2).mean(0, keepdims=True))
    return w


def signal_rank(w: Matrix) -> int:
    """Singular values of the equilibrated map beyond the 1 % point of the bulk's edge.

    Johnstone's edge at fixed shape; the bulk's variance is that of what is left over.
    """
    w = equilibrated(w)
    p, m = min(w.shape), max(w.shape)
    power = np.linalg.svd(w, compute_uv=False) ** 2
    a, b = np.sqrt(m - 1), np.sqrt(p)
    edge = (a + b) ** 2 + 2.0234 * (a + b) * (1 / a + 1 / b) ** (1 / 3)
    rank = 0
    while rank < p:
        variance = power[rank:].sum() / ((p - rank) * (m - rank))
        beyond = int((power > variance * edge).sum())
        if beyond <= rank:
            break
        rank = beyond
    return rank


def level_shares(
    dominant: RankPair, numerical: RankPair, participation: RankPair, d: int
) -> dict[RankPair, float]:
    """Where an overlap is tested, and with what share of the level.

    Half at the dominant ranks, a quarter on thin whole ranges (without dominant ranks .9, and where
    they are not thin half at the participation ranks), the rest alike over the ladder 1, 2, 4 … up
    to d/2 and the participation ranks. Ranks of 0 and d have nothing to test.
    """
    thin = min(numerical) > 0 and max(numerical) < d
    has_dominant = min(dominant) > 0 and max(dominant) < d
    has_participation = min(participation) > 0 and max(participation) < d
    fixed: list[tuple[RankPair, float]] = []
    if has_dominant:
        fixed.append((dominant, 0.5))
        if thin:
            fixed.append((numerical, 0.25))
    elif thin:
        fixed.append((numerical, 0.9))
    elif has_participation:
        fixed.append((participation, 0.5))
    rest = {(2**k, 2**k) for k in range(20) if 2**k <= min(*numerical, d // 2)}
    if has_participation:
        rest.add(participation)
    left = 1 - sum(share for _, share in fixed)
    shares: dict[RankPair, float] = {}
    for ranks, share in [*fixed, *((ranks, left / len(rest)) for ranks in rest)]:
        shares[ranks] = shares.get(ranks, 0) + share
    return shares


def cauchy_log10_p(log10_p: Sequence[float], weights: Sequence[float]) -> float:
    """Tail of a Cauchy variable at the weighted mean of the quantiles of the p-values."""
    if min(log10_p) < -290:
        # Beyond double precision cot(πp) = 1/(πp), and so is the tail.
        terms = -np.log(10) * np.array(log10_p)
        shares = np.array(weights) / sum(weights)
        return float(-scipy.special.logsumexp(terms, b=shares) / np.log(10))
    p = np.minimum(10.0 ** np.array(log10_p), 0.99)
    quantiles = scipy.stats.cauchy.isf(p)
    mean = np.average(quantiles, weights=weights)
    return float(scipy.stats.cauchy.logsf(mean) / np.log(10))


def combined_log10_p(w1: Matrix, w2: Matrix, shares: dict[RankPair, float], law: Law) -> float:
    """The combined test of an overlap, space by space; law(total, p, q, d) gives log10 p."""
    d = w1.shape[0]
    tests = [law(total_overlap(left_space(w1, i), right_space(w2, j)), i, j, d) for i, j in shares]
    return cauchy_log10_p(tests, list(shares.values()))


def uneven(w: Matrix) -> bool:
    """Whether the squared norms of w's rows spread 1.5 times as much as in a Haar position."""
    square = (w**2).sum(1)
    square = square[square > 0]
    n, mean = len(square), square.mean()
    centred = np.linalg.norm(write_gram(w)) ** 2 - n * mean**2
    return bool(((square - mean) ** 2).sum() > 1.5 * 2 * centred / (n + 2))


def without_profiles(
    w1: Matrix, w2: Matrix, *, centred: bool = False
) -> tuple[Matrix, Matrix] | None:
    """The pair on the coordinates that are alive in both maps, with rows of norm 1 if unlike.

    Unlike are scales that are uneven in both maps, or correlated beyond 1.64 standard errors. None
    where they are not, and not both maps have zero coordinates. `centred` takes the mean over the
    coordinates off first, and leaves its direction out at the end.
    """
    sides = w1, w2.T
    on = [(w != 0).any(1) for w in sides]
    alive = on[0] & on[1]
    if centred:
        sides = tuple((w - w[one].mean(0)) * one[:, None] for w, one in zip(sides, on, strict=True))
    norms = [np.linalg.norm(w[alive], axis=1, keepdims=True) for w in sides]
    with np.errstate(invalid="ignore"):
        correlation = np.corrcoef(norms[0].T ** 2, norms[1].T ** 2)[0, 1]
    shared = abs(correlation) * np.sqrt(alive.sum() - 1) > 1.64
    one, two = (w[alive] for w in sides)
    if shared or (uneven(sides[0]) and uneven(sides[1])):
        one, two = one / norms[0], two / norms[1]
    elif on[0].all() or on[1].all():
        return None
    if centred:
        rest = scipy.linalg.null_space(np.ones((1, len(one))))
        one, two = rest.T @ one, rest.T @ two
    return one, two.T


def guarded_log10_p(
    w1: Matrix, w2: Matrix, shares: dict[RankPair, float], law: Law, *, centred: bool = False
) -> float:
    """The combined test of the pair without its profiles, at ranks that its maps have.

    0 on fewer than 8 coordinates.
    """
    pair = without_profiles(w1, w2, centred=centred)
    if pair is None:
        return -np.inf
    d = pair[0].shape[0]
    if d < 8:
        return 0.0
    limits = np.linalg.matrix_rank(pair[0]), np.linalg.matrix_rank(pair[1])
    clipped: dict[RankPair, float] = {}
    for (i, j), share in shares.items():
        ranks = min(i, int(limits[0])), min(j, int(limits[1]))
        if max(ranks) < d:
            clipped[ranks] = clipped.get(ranks, 0) + share
    return combined_log10_p(*pair, clipped, law) if clipped else 0.0


def beta_log10_p(total: float, p: int, q: int, d: int) -> float:
    """Two-sided log10 p of an overlap, by the Beta law on its range with its mean and variance.

    Exact where one of p, q, d - p, d - q is 1.
    """
    low, high = max(0, p + q - d), min(p, q)
    mean = (haar_overlap_mean(d, p, q) - low) / (high - low)
    variance = haar_overlap_variance(d, p, q) / (high - low) ** 2
    size = mean * (1 - mean) / variance - 1
    law = scipy.stats.beta(mean * size, (1 - mean) * size)
    at = (total - low) / (high - low)
    return float(min(0, np.log(2) + min(law.logcdf(at), law.logsf(at))) / np.log(10))


def weighted_adjustment(
    p: Sequence[float], kinds: Sequence[str], tests: dict[str, int]
) -> tuple[Vector, Vector]:
    """Weighted Benjamini-Hochberg and Bonferroni, test by test: each kind has the same share.

    `tests` says how many tests of each kind there were; those that are not listed come last.
    """
    every = [(value, kind) for value, kind in zip(p, kinds, strict=True)]
    every += [
        (np.inf, kind) for kind in tests for _ in range(tests[kind] - list(kinds).count(kind))
    ]
    total = len(every)
    weighted = [value / (total / (len(tests) * tests[kind])) for value, kind in every]
    order = np.argsort(weighted, kind="stable")
    adjusted, least = np.empty(total), 1.0
    for rank in range(total, 0, -1):
        least = min(least, weighted[order[rank - 1]] * total / rank)
        adjusted[order[rank - 1]] = least
    return adjusted[: len(p)], np.minimum(1, np.array(weighted) * total)[: len(p)]
