"""GGUF's types of blocks: dequantised by the gguf package, and the spacing of their grids."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from flagscope.errors import MissingExtraError

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

# Where the integers stand in a block, and the bytes that make all of them 0 and all of them 1.
# The rest are scales and offsets: the difference of the two blocks is the spacing of the grid.
_INTEGERS: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "Q4_0": ((2, 18, 0x00, 0x11),),
    "Q4_1": ((4, 20, 0x00, 0x11),),
    "Q5_0": ((2, 6, 0x00, 0x00), (6, 22, 0x00, 0x11)),
    "Q5_1": ((4, 8, 0x00, 0x00), (8, 24, 0x00, 0x11)),
    "Q8_0": ((2, 34, 0x00, 0x01),),
    "Q2_K": ((16, 80, 0x00, 0x55),),
    "Q3_K": ((0, 32, 0xFF, 0xFF), (32, 96, 0x00, 0x55)),
    "Q4_K": ((16, 144, 0x00, 0x11),),
    "Q5_K": ((16, 48, 0x00, 0x00), (48, 176, 0x00, 0x11)),
    "Q6_K": ((0, 128, 0x00, 0x11), (128, 192, 0x00, 0x00)),
    "MXFP4": ((1, 17, 0x00, 0x11),),
}
# Types of which an element is a number by itself.
_PLAIN = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
}  # fmt: skip


def gguf_package() -> ModuleType:
    """The gguf package.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import gguf  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError(
            "GGUF files are read with the gguf package, which is not installed.",
            hint="pip install 'flagscope[gguf]'",
        ) from None
    return gguf


def block_sizes() -> dict[int, tuple[int, int]]:
    """Elements and bytes of a block by the number of its type."""
    return {int(kind): size for kind, size in gguf_package().GGML_QUANT_SIZES.items()}


def type_name(kind: int) -> str:
    """Name of a type by its number."""
    return gguf_package().GGMLQuantizationType(kind).name


def plain_dtype(kind: int) -> str | None:
    """PyTorch's name of a type without blocks, None for a quantised one."""
    return _PLAIN.get(type_name(kind))


def can_dequantise(kind: int) -> bool:
    """Whether the installed gguf package dequantises a type."""
    gguf = gguf_package()
    elements, size = block_sizes()[kind]
    try:
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), gguf.GGMLQuantizationType(kind))
    except NotImplementedError:
        return False
    return elements > 0


def dequantised(blocks: Bytes, kind: int) -> Floats:
    """The numbers that rows of blocks stand for, (..., bytes) to (..., elements)."""
    gguf = gguf_package()
    # A block of zeros may hold scales that are infinite or NaN; those numbers come as they are.
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType(kind))


def grid_step(blocks: Bytes, kind: int) -> Floats | None:
    """Spacing of the grid of each number of rows of blocks, None where it is not known.

    MXFP4's numbers are floating-point: the grid is wider for the larger ones (Rouhani et al.,
    arXiv 2310.10537, table 1).
    """
    name = type_name(kind)
    if name not in _INTEGERS:
        return None
    size = block_sizes()[kind][1]
    zeros, ones = np.array(blocks), np.array(blocks)
    for start, stop, zero, one in _INTEGERS[name]:
        zeros.reshape(-1, size)[:, start:stop] = zero
        ones.reshape(-1, size)[:, start:stop] = one
    step = np.abs(dequantised(ones, kind) - dequantised(zeros, kind))
    if name == "MXFP4":
        with np.errstate(all="ignore"):
            steps = np.abs(dequantised(blocks, kind)) / step  # 0, 1, 2, 3, 4, 6, 8, 12
        step = step * np.where(steps >= 8, 4, np.where(steps >= 4, 2, 1)).astype(np.float32)
    return step
