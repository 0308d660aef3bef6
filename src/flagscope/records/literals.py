"""Words that graphs, records and reports share: each literal type, once."""

from __future__ import annotations

from typing import Literal, get_args

Freedom = Literal["gl", "rotary", "scaling", "permutation", "scale", "outer", "none"]
"""Changes of the shared space of a pair that leave the network's function as it is."""
FREEDOMS: tuple[Freedom, ...] = get_args(Freedom)

Label = Literal["functional", "gauge"]
"""Whether a pair's own freedom leaves a number (functional) or moves it (gauge)."""

PairKind = Literal["qk", "ov", "mlp", "sequential", "conv", "residual", "latent"]
Attention = Literal["self", "cross"]

HeadSpace = Literal["q", "k", "v", "o"]
HEAD_SPACES: tuple[HeadSpace, ...] = get_args(HeadSpace)
StreamBasis = Literal["shared", "post-norm", "unknown"]
"""Whether heads of different layers of a stack meet in one basis of the stream."""
ReadSpace = Literal["q", "k", "v"]
"""What a head reads of the residual stream; it writes by "o"."""

TestKind = Literal[
    "overlap",
    "commutator",
    "correlation",
    "heads",
    "shared",
    "copies",
    "clusters",
    "link_overlap",
    "link_composition",
]

What = Literal["pairs", "head groups", "links"]
"""Kinds of results of a scan."""

Part = Literal["health", "pairs", "heads", "residual"]
PARTS: tuple[Part, ...] = get_args(Part)
CurvePart = Literal["pairs", "heads", "health"]
"""Parts of a scan that a series follows over its steps."""
Precision = Literal["mixed", "float64", "float32"]
FoldNorms = Literal["auto", "all", "none"]
Depth = Literal["auto", "sharp", "full"]
"""How much of the spectra of large maps a scan computes."""
