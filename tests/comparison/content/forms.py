"""Forms of one set of weights, made by encoders that are not flagscope's."""

from __future__ import annotations

import json

import numpy as np
import torch
from safetensors.torch import save_file

from flagscope.checkpoint import from_state_dict, open_checkpoint

GROUP = 128
AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)


def is_matrix(name, tensor):
    return tensor.ndim == 2 and tensor.is_floating_point() and name.endswith("weight")


def in_layer(name, tensor):
    return is_matrix(name, tensor) and ".layer." in name


def cast(state, dtype):
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}


def float8_tensor(state):
    made = {}
    for name, tensor in state.items():
        if not in_layer(name, tensor):
            made[name] = tensor
            continue
        scale = tensor.abs().max() / 448
        made[name] = (tensor / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        made[name + "_scale"] = scale
    return made


def float8_rows(state):
    made = {}
    for name, tensor in state.items():
        if not in_layer(name, tensor):
            made[name] = tensor
            continue
        scale = tensor.abs().amax(1, keepdim=True) / 448
        made[name] = (tensor / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        made[name + "_scale"] = scale
    return made


def float8_blocks(state):
    made = {}
    for name, tensor in state.items():
        if not in_layer(name, tensor):
            made[name] = tensor
            continue
        rows, columns = tensor.shape
        tiles = tensor.reshape(rows // 128, 128, columns // 128, 128)
        scale = tiles.abs().amax((1, 3)) / 448
        codes = (tiles / scale[:, None, :, None]).to(torch.float8_e4m3fn)
        made[name] = codes.reshape(rows, columns)
        made[name + "_scale_inv"] = scale
    return made


def int8_rows(state):
    made = {}
    for name, tensor in state.items():
        if not in_layer(name, tensor):
            made[name] = tensor
            continue
        scale = tensor.abs().amax(1, keepdim=True) / 127
        made[name] = (tensor / scale).round().clamp(-128, 127).to(torch.int8)
        made[name + "_scale"] = scale
    return made


def _words(parts):
    """Eight numbers of 4 bits each, along the last axis, in a word of 32."""
    shifts = torch.arange(8, dtype=torch.int64) * 4
    return (parts.to(torch.int64) << shifts).sum(-1).to(torch.int32)


def _grouped(tensor, *, symmetric):
    """Codes (inputs, outputs), zeros and scales (groups, outputs), rounded to nearest."""
    outputs, inputs = tensor.shape
    blocks = tensor.reshape(outputs, inputs // GROUP, GROUP)
    if symmetric:
        most = blocks.abs().amax(-1)
        scale, zero = 2 * most / 15, torch.full_like(most, 8)
    else:
        low = blocks.amin(-1).clamp_max(0)
        high = blocks.amax(-1).clamp_min(0)
        scale = (high - low) / 15
        zero = (-low / scale).round()
    codes = ((blocks / scale[..., None]).round() + zero[..., None]).clamp(0, 15)
    return codes.reshape(outputs, inputs).T.long(), zero.T.long(), scale.T.half().contiguous()


def gptq(state, *, symmetric=True):
    made = {}
    for name, tensor in state.items():
        if not in_layer(name, tensor):
            made[name] = tensor
            continue
        at = name.removesuffix("weight")
        codes, zeros, scales = _grouped(tensor, symmetric=symmetric)
        inputs, outputs = codes.shape
        made[at + "qweight"] = _words(codes.reshape(inputs // 8, 8, outputs).permute(0, 2, 1))
        made[at + "qzeros"] = _words(((zeros - 1) % 16).reshape(len(zeros), outputs // 8, 8))
        made[at + "scales"] = scales
    return made


def awq(state):
    made = {}
    order = torch.tensor(AWQ_COLUMNS)
    for name, tensor in state.items():
        if not in_layer(name, tensor):
            made[name] = tensor
            continue
        at = name.removesuffix("weight")
        codes, zeros, scales = _grouped(tensor, symmetric=False)
        inputs, outputs = codes.shape
        made[at + "qweight"] = _words(codes.reshape(inputs, outputs // 8, 8)[..., order])
        made[at + "qzeros"] = _words(zeros.reshape(len(zeros), outputs // 8, 8)[..., order])
        made[at + "scales"] = scales
    return made


def packed_config(method):
    settings = {"quant_method": method, "bits": 4, "group_size": GROUP}
    if method == "awq":
        settings["version"] = "gemm"
    return {"model_type": "bert", "quantization_config": settings}


def _steps(x, w, levels):
    """ggml's make_qkx2_quants: a scale and a least entry by a search over weighted errors."""
    low = np.minimum(x.min(-1), 0.0)
    high = x.max(-1)
    scale = np.where(high > low, (high - low) / levels, 0.0)
    best = np.full(len(x), np.inf)
    found = (scale.copy(), low.copy())
    for number in range(22):
        near = np.where(high > low, (levels - 1 + 0.1 * (number - 1)) / (high - low + 1e-30), 0.0)
        if number == 0:
            near = np.where(scale > 0, 1 / (scale + 1e-30), 0.0)
        codes = np.clip(np.round(near[:, None] * (x - low[:, None])), 0, levels)
        sw, sl, sll = w.sum(-1), (w * codes).sum(-1), (w * codes * codes).sum(-1)
        sx, sxl = (w * x).sum(-1), (w * codes * x).sum(-1)
        det = sw * sll - sl * sl
        safe = np.where(det > 0, det, 1.0)
        s, m = (sw * sxl - sx * sl) / safe, (sll * sx - sl * sxl) / safe
        alone = sxl / np.where(sll > 0, sll, 1.0)
        s, m = np.where(m > 0, alone, s), np.where(m > 0, 0.0, m)
        error = (w * (s[:, None] * codes + m[:, None] - x) ** 2).sum(-1)
        better = (det > 0) & (error < best)
        best = np.where(better, error, best)
        found = (np.where(better, s, found[0]), np.where(better, m, found[1]))
    return found[0], -found[1]


def q4_k(array):
    """Bytes of Q4_K: ggml's quantize_row_q4_K_ref, in NumPy."""
    x = array.reshape(-1, 8, 32).astype(np.float64)
    flat = x.reshape(-1, 32)
    w = np.sqrt((flat**2).mean(-1, keepdims=True)) + np.abs(flat)
    scale, least = (part.reshape(-1, 8) for part in _steps(flat, w, 15))
    most, deepest = scale.max(-1), least.max(-1)
    ls = np.clip(np.round(scale * np.where(most > 0, 63 / most, 0)[:, None]), 0, 63)
    lm = np.clip(np.round(least * np.where(deepest > 0, 63 / deepest, 0)[:, None]), 0, 63)
    ls, lm = ls.astype(np.uint8), lm.astype(np.uint8)
    d, dmin = (most / 63).astype(np.float16), (deepest / 63).astype(np.float16)
    step = (d.astype(np.float32)[:, None] * ls)[..., None]
    offset = (dmin.astype(np.float32)[:, None] * lm)[..., None]
    codes = np.clip(np.round((x + offset) / np.where(step > 0, step, 1)), 0, 15)
    codes = np.where(step > 0, codes, 0).astype(np.uint8)
    packed = np.zeros((len(x), 12), np.uint8)
    packed[:, :4] = ls[:, :4] | (ls[:, 4:] >> 4 << 6)
    packed[:, 4:8] = lm[:, :4] | (lm[:, 4:] >> 4 << 6)
    packed[:, 8:] = (ls[:, 4:] & 15) | (lm[:, 4:] & 15) << 4
    pairs = codes.reshape(-1, 4, 2, 32)
    nibbles = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
    parts = (d[:, None].view(np.uint8), dmin[:, None].view(np.uint8), packed, nibbles)
    return np.concatenate(parts, 1).reshape(array.shape[0], -1)


def write_gguf(path, state, kind, layers):
    """A GGUF file of a BERT, names by the gguf package's own table."""
    import gguf

    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    writer = gguf.GGUFWriter(path, "bert")
    sizes = {"block_count": layers, "embedding_length": 384, "feed_forward_length": 1536}
    for key, value in (sizes | {"attention.head_count": 12}).items():
        writer.add_uint32(f"bert.{key}", value)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        given = table.get_name(name, try_suffixes=(".weight", ".bias"))
        array = np.ascontiguousarray(tensor.numpy())
        kinds = gguf.GGMLQuantizationType
        if not is_matrix(name, tensor) or (kind == "Q4_K" and array.shape[1] % 256):
            writer.add_tensor(given, array)
        elif kind == "Q4_K":
            writer.add_tensor(given, q4_k(array), raw_dtype=kinds.Q4_K)
        else:
            writer.add_tensor(
                given, gguf.quants.quantize(array, kinds[kind]), raw_dtype=kinds[kind]
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


PLAIN = {
    "bfloat16": lambda state: cast(state, torch.bfloat16),
    "float16": lambda state: cast(state, torch.float16),
    "float8 of a tensor": float8_tensor,
    "float8 of rows": float8_rows,
    "float8 of blocks": float8_blocks,
    "int8 of rows": int8_rows,
}
PACKED = {
    "GPTQ": (gptq, "gptq"),
    "GPTQ with zeros": (lambda state: gptq(state, symmetric=False), "gptq"),
    "AWQ": (awq, "awq"),
}
GGUF = ("F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q4_K")
FORMS = (*PLAIN, *PACKED, *GGUF)


def encoded(state, form, folder, layers=2):
    """The path of the weights in a form, or a mapping for forms that need no file."""
    if form in PLAIN:
        save_file(PLAIN[form](state), folder / "model.safetensors")
        return folder / "model.safetensors"
    if form in PACKED:
        make, method = PACKED[form]
        save_file(make(state), folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(packed_config(method)))
        return folder
    return write_gguf(folder / "model.gguf", state, form, layers)


def opened(state, form, folder, layers=2):
    return open_checkpoint(encoded(state, form, folder, layers))


def in_memory(state):
    return from_state_dict(state)
