"""Identifies the axes of attention parameters that have an axis of heads.

Three axes may be (heads, stream, head), (heads, head, stream) or (stream, heads, head). The output
map, biases, the config and the widths of other maps decide, each where it distinguishes them; what
none of them decides is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from flagscope.arch.reading.modules import Matrix
from flagscope.arch.reading.proposals import Proposal, RoleMap

Candidate = tuple[dict[str, RoleMap], int, int]
"""Q, K and V, the input length of the output map, and the width of the stream."""
_LAYOUTS = (("h d k", "h k d"), ("h k d", "h d k"), ("d h k", "h k d"))


def by_heads(
    proposal: Proposal, widths: Counter[int], known: Mapping[str, int]
) -> Iterator[Candidate]:
    """The possible readings of parameters with an axis of heads.

    Parameters
    ----------
    widths
        Counts of each length in the maps and norms outside of attention.
    known
        Sizes by axis from a config: h, g, k, d. They decide only where they fit.
    """
    candidates = list(_candidates(proposal))
    near = [matrix for group in proposal.outputs for matrix in group]
    tests: tuple[Callable[[Candidate], bool], ...] = (
        lambda candidate: any(heads_output(candidate[0], matrix) for matrix in near),
        lambda candidate: all(map(_bias_fits, candidate[0].values())),
        lambda candidate: _output_bias_fits(candidate, near),
        lambda candidate: all(
            known.get(axis, size) == size for axis, size in _sizes(candidate).items()
        ),
    )
    for fits in tests:
        # Evidence that contradicts every reading is ignored: it is about something else.
        candidates = [candidate for candidate in candidates if fits(candidate)] or candidates
    if len(candidates) > 1:
        most = max(widths[d] for _, _, d in candidates)
        candidates = [
            candidate for candidate in candidates if widths[candidate[2]] == most and most > 0
        ]
    yield from candidates


def heads_output(maps: Mapping[str, RoleMap], matrix: Matrix) -> RoleMap | None:
    """The output map with an axis of heads, or a plain one of the right shape."""
    layout = maps["q"].layout
    sizes = _axes(maps["q"])
    h, k, d = sizes["h"], sizes["k"], sizes["d"]
    if len(matrix.shape) == 3:
        for taken, output in _LAYOUTS:
            expected = tuple(sizes[axis] for axis in output.split())
            if taken == layout and matrix.shape == expected:
                return RoleMap(matrix, output)
        return None
    if matrix.shape == (d, h * k):
        # The weight of a module is (out, in); a bare square parameter may be either.
        return RoleMap(matrix, "d (h k)") if matrix.joint or d != h * k else None
    return RoleMap(matrix, "(h k) d") if matrix.shape == (h * k, d) else None


def _candidates(proposal: Proposal) -> Iterator[Candidate]:
    query, key, value = (proposal.roles[role] for role in "qkv")
    for layout, _ in _LAYOUTS:
        if proposal.heads is not None and layout != "h k d":
            continue
        grouped = layout.replace("h", "g")
        maps = {"q": RoleMap(query, layout), "k": RoleMap(key, grouped),
                "v": RoleMap(value, grouped)}  # fmt: skip
        q, k, v = (_axes(role_map) for role_map in maps.values())
        alike = q["d"] == k["d"] == v["d"] and q["k"] == k["k"] == v["k"]
        if alike and k["g"] == v["g"] and q["h"] % k["g"] == 0:
            yield maps, q["h"] * q["k"], q["d"]


def _axes(role_map: RoleMap) -> dict[str, int]:
    return dict(zip(role_map.layout.split(), role_map.matrix.shape, strict=True))


def _sizes(candidate: Candidate) -> dict[str, int]:
    """Sizes by axis; keys add those that queries do not have."""
    return _axes(candidate[0]["k"]) | _axes(candidate[0]["q"])


def _bias_fits(role_map: RoleMap) -> bool:
    """Whether a bias has one entry per dimension of each head, and no axis of the stream."""
    shape = role_map.matrix.bias_shape
    if not shape:
        return True
    written = tuple(size for axis, size in _axes(role_map).items() if axis != "d")
    return shape == written if len(shape) > 1 else shape == (written[0] * written[1],)


def _output_bias_fits(candidate: Candidate, near: Sequence[Matrix]) -> bool:
    """Whether the length of the output map's bias is the width of the stream."""
    shapes = [matrix.bias_shape for matrix in near if heads_output(candidate[0], matrix)]
    return all(shape in ((), (candidate[2],)) for shape in shapes)
