"""A small valid source of every format that is read, to be damaged."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from checkpoint import keras_models
from checkpoint.distributed_folders import grid, write_shards

CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
    "intermediate_size": 24, "vocab_size": 20, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "partial_rotary_factor": 1.0, "tie_word_embeddings": False,
    "max_position_embeddings": 64, "rope_scaling": None, "torch_dtype": "float32",
}  # fmt: skip


def llama() -> dict[str, Tensor]:
    """Weights of two layers, as transformers names them."""
    made = torch.Generator().manual_seed(0)
    shapes = {"self_attn.q_proj": (16, 16), "self_attn.k_proj": (8, 16),
              "self_attn.v_proj": (8, 16), "self_attn.o_proj": (16, 16),
              "mlp.gate_proj": (24, 16), "mlp.up_proj": (24, 16), "mlp.down_proj": (16, 24),
              "input_layernorm": (16,), "post_attention_layernorm": (16,)}  # fmt: skip
    state = {
        f"model.layers.{layer}.{name}.weight": torch.randn(shape, generator=made)
        for layer in range(2)
        for name, shape in shapes.items()
    }
    state["model.embed_tokens.weight"] = torch.randn(20, 16, generator=made)
    state["lm_head.weight"] = torch.randn(20, 16, generator=made)
    return state | {"model.norm.weight": torch.ones(16)}


def perceptron() -> dict[str, Tensor]:
    """Three numbered layers of a plain network."""
    made = torch.Generator().manual_seed(1)
    widths = (5, 8, 7, 3)
    state: dict[str, Tensor] = {}
    for layer in range(3):
        shape = widths[layer + 1], widths[layer]
        state[f"{2 * layer}.weight"] = torch.randn(shape, generator=made)
        state[f"{2 * layer}.bias"] = torch.zeros(shape[0])
    return state


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    return {name: tensor.numpy() for name, tensor in perceptron().items()}


def with_config(folder: Path, **more: Any) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | more))


def safetensors(folder: Path) -> None:
    save_file(llama(), folder / "model.safetensors", metadata={"format": "pt"})
    with_config(folder)


def safetensors_alone(folder: Path) -> None:
    save_file(perceptron(), folder / "model.safetensors")


def sharded(folder: Path) -> None:
    state = llama()
    where = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(state)}
    for file in set(where.values()):
        save_file({n: t for n, t in state.items() if where[n] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with_config(folder)


def torch_zip(folder: Path) -> None:
    saved = {"state_dict": llama(), "epoch": 3, "hparams": dict(CONFIG), "optimizer": {"lr": 0.1}}
    torch.save(saved, folder / "model.pt")


def torch_legacy(folder: Path) -> None:
    torch.save(
        {"model": perceptron(), "args": {"depth": 3}},
        folder / "legacy.pth",
        _use_new_zipfile_serialization=False,
    )


def torchscript(folder: Path) -> None:
    # Its API warns that it will go, and the files stay.
    import warnings

    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), folder / "script.pt")


def whole_module(folder: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), folder / "module.pt")


def plain_pickle(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(pickle.dumps({"state": arrays(), "cfg": {"depth": 2}}))


def npz(folder: Path) -> None:
    np.savez(folder / "model.npz", **arrays())  # pyright: ignore[reportArgumentType]


def npz_packed(folder: Path) -> None:
    np.savez_compressed(folder / "model.npz", **arrays())  # pyright: ignore[reportArgumentType]


def gguf(folder: Path) -> None:
    from checkpoint.test_gguf import converted, write
    from checkpoint.test_gguf import llama as larger

    write(folder / "model.gguf", converted(larger()), "Q8_0")


def onnx(folder: Path) -> None:
    import onnx as package
    from onnx import helper, numpy_helper

    held = [numpy_helper.from_array(array, name) for name, array in arrays().items()]
    nodes, last = [], "x"
    for layer in (0, 2, 4):
        names = [last, f"{layer}.weight", f"{layer}.bias"]
        nodes.append(helper.make_node("Gemm", names, [f"g{layer}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"g{layer}"], [f"r{layer}"]))
        last = f"r{layer}"
    ends = [helper.make_tensor_value_info(n, 1, [1, k]) for n, k in (("x", 5), (last, 3))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    package.save_model(helper.make_model(graph), str(folder / "model.onnx"))


def onnx_external(folder: Path) -> None:
    import onnx as package

    onnx(folder)
    model = package.load(str(folder / "model.onnx"))
    package.save_model(
        model, str(folder / "model.onnx"), save_as_external_data=True, location="weights.data",
        size_threshold=0, convert_attribute=True,
    )  # fmt: skip


def adapter(folder: Path) -> None:
    base = folder / "base"
    base.mkdir()
    safetensors(base)
    made = torch.Generator().manual_seed(2)
    at = "base_model.model.model.layers.{}.self_attn.{}_proj.lora_{}.weight"
    state = {
        at.format(layer, name, side): torch.randn(shape, generator=made)
        for layer in range(2)
        for name in "qo"
        for side, shape in (("A", (2, 16)), ("B", (16, 2)))
    }
    save_file(state, folder / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "base",
            "alpha_pattern": {"self_attn.o_proj": 8}, "rank_pattern": {}, "use_rslora": False,
            "fan_in_fan_out": False, "init_lora_weights": True, "modules_to_save": None,
            "target_modules": ["q_proj", "o_proj"]}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(told))


def _keras(folder: Path, kind: str) -> None:
    one, two = nn.Linear(5, 8), nn.Linear(8, 3)
    layers = [keras_models.dense(one, "dense", "relu"), keras_models.dense(two, "dense_1")]
    keras_models.write(folder / "model", layers, kind)


def keras(folder: Path) -> None:
    _keras(folder, "keras")


def keras_h5(folder: Path) -> None:
    _keras(folder, "h5 of keras 2")


def flax(folder: Path) -> None:
    from checkpoint.test_flax import array, chunked, nested, save

    state = perceptron()
    flat: dict[str, Any] = {f"params.dense_{n}.kernel": array(state[f"{n}.weight"].T)
                            for n in (0, 2)}  # fmt: skip
    flat["params.dense_4.kernel"] = chunked(state["4.weight"].T.contiguous(), 6)
    save(folder / "flax_model.msgpack", nested(flat | {"step": 3}))


def distributed(folder: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in perceptron().items()}
    boxes = {name: grid(t.shape, (2,) * t.ndim) for name, t in state.items()}
    write_shards(folder, state, boxes)


def deepspeed(folder: Path) -> None:
    from checkpoint.test_deepspeed import WHOLE, folder_of

    folder_of(folder, {WHOLE: llama()})
    with_config(folder)


def _quantised(folder: Path, what: str) -> None:
    from checkpoint.test_quantised import parts_of

    save_file(parts_of(what, "0.") | {"2.weight": torch.randn(4, 10)}, folder / "m.safetensors")
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 8}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized",
                "config_groups": groups}  # fmt: skip
    told = {} if "NF4" in what else {"quantization_config": settings}
    (folder / "config.json").write_text(json.dumps({"model_type": "x", **told}))


def bitsandbytes(folder: Path) -> None:
    _quantised(folder, "NF4, nested")


def compressed_tensors(folder: Path) -> None:
    _quantised(folder, "compressed-tensors int4, group, zero points")


def gptq(folder: Path) -> None:
    from checkpoint.test_packed import gptq as packed

    state, config, _, _ = packed()
    save_file({n.replace("fc", "0"): t for n, t in state.items()}, folder / "m.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def float8(folder: Path) -> None:
    state = llama()
    for name in [name for name in state if "proj" in name]:
        state[name] = state[name].to(torch.float8_e4m3fn)
        state[f"{name}_scale_inv"] = torch.ones([-(-size // 8) for size in state[name].shape])
    save_file(state, folder / "model.safetensors")
    blocks = {"quant_method": "fp8", "weight_block_size": [8, 8]}
    with_config(folder, quantization_config=blocks)


def zipped(folder: Path) -> None:
    inner = io.BytesIO()
    torch.save(perceptron(), inner)
    with zipfile.ZipFile(folder / "agent.zip", "w") as archive:
        archive.writestr("policy.pth", inner.getvalue())
        archive.writestr("data", "{}")


def family(folder: Path) -> None:
    safetensors(folder)
    from importlib import resources

    shipped = resources.files("flagscope.arch") / "families" / "llama.toml"
    (folder / "own.toml").write_text(shipped.read_text(encoding="utf-8"), encoding="utf-8")


def store(folder: Path) -> None:
    """A checkpoint and the results of a scan of it."""
    import flagscope

    safetensors(folder)
    flagscope.scan(folder, store=folder / "store", workers=1)


SEEDS: dict[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (
        safetensors, safetensors_alone, sharded, torch_zip, torch_legacy, torchscript,
        whole_module, plain_pickle, npz, npz_packed, gguf, onnx, onnx_external, adapter, keras,
        keras_h5, flax, distributed, deepspeed, bitsandbytes, compressed_tensors, gptq, float8,
        zipped, family, store,
    )
}  # fmt: skip
"""By name: what writes a source into a folder."""

FILES = {"torch_legacy": "legacy.pth", "plain_pickle": "model.pkl", "zipped": "agent.zip"}
"""Of the seeds that are opened by a file, its name."""
