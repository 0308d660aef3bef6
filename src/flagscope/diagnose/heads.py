"""Records of attention heads: how the heads of one layer share the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from flagscope.arch import HeadGroup
from flagscope.diagnose.clusters import near_copy_clusters
from flagscope.diagnose.head_spaces import (
    HeadSpaces,
    ProjectorSum,
    head_spaces,
    pairwise_overlaps,
    projector_sum,
)
from flagscope.diagnose.matrices import Matrices
from flagscope.diagnose.position import LEVEL
from flagscope.diagnose.records import HeadPair, HeadRecord, SharedDirection
from flagscope.diagnose.values import array_values, number, rounded
from flagscope.null import (
    count_beyond_chance,
    haar_overlap,
    mean_overlap,
    mean_overlap_significance,
    overlap_significance,
    projector_sum_threshold,
)

# Pairs of heads and shared directions that are listed; the pairwise matrix holds all pairs.
_LISTED_PAIRS = 8
_LISTED_DIRECTIONS = 8
# Level, before the correction for the number of pairs, at which a pair of heads is listed.
_PAIR_LEVEL = 0.01


def head_record(group: HeadGroup, maps: Matrices, *, folded: Sequence[str] = ()) -> HeadRecord:
    """Diagnose the heads of one layer in one space of the stream.

    Parameters
    ----------
    group
        Names the layer and the space.
    maps
        One map a head, shape (H, r, d): the rows span the head's space (for the output space pass
        the transposed maps).
    folded
        Names of norms that were folded into the maps, for the record.

    Returns
    -------
    HeadRecord
        With a status and nulls where a head is zero or not finite, or where there is one head.

    References
    ----------
    Σcos² between head spaces is the projection kernel (arXiv 2601.10266); its mean over head pairs
    in units of chance is the head overlap ratio of arXiv 2605.09861.
    """
    identity = {
        "stack": group.stack,
        "attention": group.attention,
        "layer": group.layer,
        "space": group.space,
        "tensor": group.map.tensor,
        "count": len(maps.values),
        "d": maps.values.shape[2],
        "folded": list(folded),
    }
    faults = {h: fault for h, fault in enumerate(maps.faults()) if fault}
    if faults:
        text = ", ".join(f"head {h} is {fault}" for h, fault in faults.items())
        return _blank(identity, text)
    if len(maps.values) < 2:
        return _blank(identity, "a single head has no other to overlap with")
    spaces = head_spaces(maps.values, noise=maps.delta)
    if bool((spaces.ranks == 0).any()):
        return _blank(identity, "a head lies below its storage noise")
    return HeadRecord(**identity, **_measure(spaces))


def _blank(identity: dict[str, Any], status: str) -> HeadRecord:
    listed = {"shared", "near_copies", "cluster_tests"}
    names = set(HeadRecord.model_fields) - set(identity) - listed - {"status"}
    missing: dict[str, Any] = dict.fromkeys(names)
    return HeadRecord(**identity, **missing, status=status)


def _measure(spaces: HeadSpaces) -> dict[str, Any]:
    ranks = spaces.ranks.tolist()
    d, count = spaces.d, len(ranks)
    total = pairwise_overlaps(spaces).cpu().double().numpy()
    ratios = total * d / np.outer(ranks, ranks)
    upper = ratios[np.triu_indices(count, 1)]
    overlap = float(upper.mean())
    null = mean_overlap(ranks, d)
    test = mean_overlap_significance(overlap, ranks, d)
    # Heads of unequal rank are rare (pruned or zeroed ones); the largest rank gives the larger
    # threshold and so the more careful count.
    threshold = projector_sum_threshold(d, max(ranks), count, level=LEVEL)
    spectrum = projector_sum(spaces, threshold=float("inf") if threshold is None else threshold)
    # Directions that the dimensions alone force into every head.
    forced = max(0, sum(ranks) - (count - 1) * d)
    clusters, order = near_copy_clusters(total, ranks)
    return {
        "rank": max(ranks),
        "overlap_ratio": overlap,
        "overlap_ratio_sd": number(null.sd),
        "z": test.z,
        "p": test.p,
        "log10_p": test.log10_p,
        "p_adjusted": None,
        "p_adjusted_dependent": None,
        "max_pair_ratio": float(upper.max()),
        "min_pair_ratio": float(upper.min()),
        "shared_directions": None if threshold is None else max(0, len(spectrum.shared) - forced),
        "shared_threshold": threshold,
        "shared": _shared(spectrum, forced),
        "spectrum": array_values(spectrum.eigenvalues),
        "clusters": clusters,
        "order": order,
        "near_copies": _nearest_pairs(spaces, total, ratios),
        "pairwise": rounded(ratios),
        "status": "ok" if test.status == "ok" else test.status,
    }


def _shared(spectrum: ProjectorSum, forced: int) -> list[SharedDirection]:
    last = forced + _LISTED_DIRECTIONS
    values = spectrum.shared[forced:last].tolist()
    members = (spectrum.membership[forced:last] > 0.5).tolist()
    return [
        SharedDirection(
            eigenvalue=float(f"{value:.6g}"), heads=[h for h, inside in enumerate(row) if inside]
        )
        for value, row in zip(values, members, strict=True)
    ]


def _nearest_pairs(spaces: HeadSpaces, total: np.ndarray, ratios: np.ndarray) -> list[HeadPair]:
    """The head pairs that overlap most, as far as they do so beyond chance."""
    ranks, d = spaces.ranks.tolist(), spaces.d
    rows, columns = np.triu_indices(len(ranks), 1)
    best = np.argsort(-ratios[rows, columns], kind="stable")[:_LISTED_PAIRS]
    level = np.log10(_PAIR_LEVEL / len(rows))
    listed = []
    for i, j in zip(rows[best].tolist(), columns[best].tolist(), strict=True):
        ri, rj = ranks[i], ranks[j]
        t = min(float(total[i, j]), min(ri, rj))
        if haar_overlap(ri, rj, d).mean >= t:
            break
        test = overlap_significance(t, ri, rj, d)
        if test.log10_p is None or test.log10_p > level:
            break
        inner = spaces.bases[i, :, :ri].mT @ spaces.bases[j, :, :rj]
        cosines = torch.linalg.svdvals(inner).clamp(max=1)
        listed.append(
            HeadPair(
                heads=(i, j),
                overlap_ratio=float(ratios[i, j]),
                log10_p=test.log10_p,
                shared=count_beyond_chance(cosines.tolist(), ri, rj, d, level=LEVEL) or 0,
                rank=min(ri, rj),
                mean_squared_cosine=t / min(ri, rj),
            )
        )
    return listed
