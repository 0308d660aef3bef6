"""Weights that a quantiser packed: unpacked exactly where the format is known, else refused."""

from __future__ import annotations

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.quantised.bitsandbytes import four_bit_weights
from flagscope.checkpoint.quantised.codes import coded_weights
from flagscope.checkpoint.quantised.compressed_tensors import compressed_weights
from flagscope.checkpoint.quantised.dequantised import DequantisedCheckpoint
from flagscope.checkpoint.quantised.gptq_awq import grouped_weights
from flagscope.errors import SourceError

# Ends of names by which a packed format is known, and what it is.
_REFUSED = (
    (".quant_state.bitsandbytes__nf4", "bitsandbytes in 4 bits (NF4)"),
    (".quant_state.bitsandbytes__fp4", "bitsandbytes in 4 bits (FP4)"),
    (".weight.absmax", "bitsandbytes in 4 bits"),
    (".weight_packed", "compressed-tensors, packed"),
    (".weight_zero_point", "compressed-tensors with zero points"),
    (".weight_scale_2", "NVFP4"),
    ("proj_blocks", "MXFP4, packed"),
    (".W_q", "HQQ"),
    (".weight._data", "Quanto"),
    ("._weight_qdata", "torchao"),
    (".codebooks", "AQLM"),
    (".Qidxs", "QuIP#"),
)
_REFUSED_ENDINGS = tuple(ending for ending, _ in _REFUSED)


def unpacked(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, its packed weights given as the numbers that they stand for.

    Parameters
    ----------
    checkpoint
        Any; the result closes it.

    Returns
    -------
    Checkpoint
        The same one where nothing is packed.

    Raises
    ------
    SourceError
        If the quantiser that packed the weights is not supported or cannot be identified.
    CorruptFileError
        If the parts of a packed weight do not fit each other.
    """
    integers, dropped = compressed_weights(checkpoint)
    weights = [*four_bit_weights(checkpoint), *integers, *coded_weights(checkpoint)]
    read = {part for weight in weights for part in weight.parts} | dropped
    suspects = [name for name in checkpoint.tensors
                if name.endswith(_REFUSED_ENDINGS) and name not in read]  # fmt: skip
    for ending, what in _REFUSED:
        name = next((name for name in suspects if name.endswith(ending)), None)
        if name is not None:
            raise SourceError(
                f"{checkpoint.source} is quantised by {what}, as {name!r} tells, which is not "
                "supported.",
                hint="scan the original checkpoint, or dequantise this one (in transformers: "
                "model.dequantize()) and save it.",
            )
    weights += grouped_weights(checkpoint)
    return DequantisedCheckpoint(checkpoint, weights, dropped) if weights or dropped else checkpoint
