"""Numbers and names in a file size nothing: no loop, no list, no message."""

from __future__ import annotations

import json
import math
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import flagscope
from cli.conftest import Answer, Run
from cli.conftest import run as run
from flagscope.checkpoint.safetensors.header import header_entries
from flagscope.errors import ArchitectureError, CorruptFileError, FlagscopeError, SourceError

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 12, "vocab_size": 8, "hidden_act": "silu",
}  # fmt: skip


def llama(*layers: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "self_attn.q_proj": (8, 8), "self_attn.k_proj": (4, 8), "self_attn.v_proj": (4, 8),
        "self_attn.o_proj": (8, 8), "mlp.gate_proj": (12, 8), "mlp.up_proj": (12, 8),
        "mlp.down_proj": (8, 12),
    }  # fmt: skip
    state = {
        f"model.layers.{layer}.{name}.weight": torch.randn(shape, generator=generator)
        for layer in layers
        for name, shape in shapes.items()
    }
    for layer in layers:
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"model.layers.{layer}.{name}.weight"] = torch.ones(8)
    return state


def written(folder: Path, *layers: int, **config: Any) -> Path:
    save_file(llama(*(layers or (0,))), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    return folder


def soon(run: Run, *arguments: object) -> Answer:
    """The answer of the command line, which has to come within seconds."""
    begun = time.process_time()
    answer = run(*arguments)
    assert time.process_time() - begun < 20
    assert answer.code == 0 or answer.err.splitlines()[-1].startswith("hint: ")
    return answer


@pytest.mark.parametrize("last", [10**5, 10**8, 10**12])
def test_the_gap_between_two_layers_may_be_of_any_size(run: Run, tmp_path: Path, last: int) -> None:
    answer = soon(run, "scan", written(tmp_path, 0, last), "--html", tmp_path / "page.html")
    assert answer.code == 0
    assert (tmp_path / "page.html").stat().st_size < 10_000_000
    if last < 10**6:
        notes = flagscope.inspect(tmp_path).notes
        assert f"layers [1 to {last - 1}] are missing under 'model.layers.{{layer}}.'" in notes


def test_a_number_of_seven_digits_is_no_layer(tmp_path: Path) -> None:
    found = flagscope.inspect(written(tmp_path, 0, 10**6))
    assert any("1000000" in name for name in found.graph.unmapped)
    assert {pair.layer for pair in found.graph.pairs} == {0}


def test_a_long_name_is_short_on_the_screen_and_whole_in_the_json(run: Run, tmp_path: Path) -> None:
    long = "9" * 5000
    state = {f"layers.{long}.weight": torch.randn(3, 2), "layers.1.weight": torch.randn(2, 3)}
    state |= {"0.weight": torch.randn(8, 4), f"{'x' * 5000}.weight": torch.randn(8, 8)}
    path = tmp_path / "m.safetensors"
    save_file(state, path)
    for arguments in (("scan", path), ("inspect", path), ("inspect", path, "--maps", "--all")):
        answer = soon(run, *arguments)
        assert answer.code == 0
        assert max(map(len, answer.out.split())) < 400
    answer = run("scan", path, "--html", tmp_path / "p.html", "--json", tmp_path / "r.json")
    assert long not in (tmp_path / "p.html").read_text()
    report = flagscope.Report.from_json(tmp_path / "r.json")
    assert f"layers.{long}.weight" in {
        *report.result.unmapped,
        *(side.tensor for pair in report.result.pairs for side in (pair.write, pair.read)),
    }
    assert any(f"{'x' * 5000}.weight" == name for name in report.result.unmapped)


def test_a_page_shows_long_names_of_pairs_shortened_and_apart(tmp_path: Path) -> None:
    stem = "a" * 400
    state = {
        f"{stem}{end}.{i}.weight": torch.randn(6, 6) for end in ("1" * 50, "2" * 50)
        for i in (0, 2)
    }  # fmt: skip
    report = flagscope.scan(state)
    assert len(report.pairs) == 2
    assert len(report.to_html(tmp_path / "p.html")) < 6_000_000
    from flagscope.report.short_names import with_short_names
    from flagscope.shortening import LONGEST_WORD

    shown = with_short_names(report.result)
    assert len({pair.name for pair in shown.pairs}) == 2
    assert all(len(pair.write.tensor) > LONGEST_WORD for pair in report.result.pairs)
    assert all(len(pair.write.tensor) <= LONGEST_WORD for pair in shown.pairs)
    assert all(len(pair.name) <= LONGEST_WORD for pair in shown.pairs)
    assert stem not in report._repr_html_()


def test_names_of_more_than_500_letters_are_in_no_pair(tmp_path: Path) -> None:
    words = ("attn_" * 100, "experts." * 300, "lin_" * 2000, "a." * 20_000, "_qkv_kv_" * 900)
    state = {
        f"{word}.{i}.{name}.weight": torch.randn(6, 6)
        for word in words for i in range(9) for name in ("q_proj", "up", "bn1")
    }  # fmt: skip
    save_file(state | {"0.weight": torch.randn(6, 6), "2.weight": torch.randn(6, 6)},
              tmp_path / "m.safetensors")  # fmt: skip
    begun = time.perf_counter()
    found = flagscope.inspect(tmp_path)
    assert time.perf_counter() - begun < 15
    assert len(found.graph.unmapped) == len(state)
    assert any("names of more than 500 letters" in note for note in found.notes)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, 1e300, 5.0, "half", []])
def test_a_rotary_fraction_that_is_none_is_refused(run: Run, tmp_path: Path, value: Any) -> None:
    answer = soon(run, "scan", written(tmp_path, partial_rotary_factor=value))
    assert answer.code == 2
    assert len(answer.err) < 600


WRONG = (10**400, 10**12, -1, 0, True, math.nan, math.inf, "8", [8], {}, {"a": 1}, 1.5, [10**30])


@pytest.mark.parametrize("key", sorted(CONFIG))
@pytest.mark.parametrize("value", WRONG, ids=lambda value: str(value)[:20])
def test_a_config_value_of_any_kind_is_refused_or_read(
    run: Run, tmp_path: Path, key: str, value: Any
) -> None:
    answer = soon(run, "scan", written(tmp_path, **{key: value}))
    assert answer.code in (0, 2)
    assert "internal error" not in answer.err
    assert " failed: " not in answer.err  # that of the guard
    assert len(answer.err) < 1000


def test_numbers_in_a_config_size_no_loop(run: Run, tmp_path: Path) -> None:
    sizes = dict.fromkeys(
        ("num_hidden_layers", "sliding_window", "num_experts", "num_local_experts", "vocab_size",
         "n_routed_experts", "num_nextn_predict_layers", "max_window_layers", "n_group",
         "first_k_dense_replace", "moe_layer_freq", "max_position_embeddings"), 10**12,
    )  # fmt: skip
    assert soon(run, "scan", written(tmp_path, **sizes)).code == 0


@pytest.mark.parametrize("number", [1, 2])
def test_a_quantization_config_may_be_any_text(run: Run, tmp_path: Path, number: int) -> None:
    wide = torch.randn(8, 8).to(torch.float8_e4m3fn)
    other = torch.randn(8, 8).to(torch.float8_e4m3fn)
    save_file(
        {"layers.0.weight": wide, "layers.0.weight_scale_inv": torch.ones(8, 1),
         "layers.1.weight": other},
        tmp_path / "m.safetensors",
    )  # fmt: skip
    value: Any = "fp8" if number == 1 else [["fp8"]]
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": value}))
    assert soon(run, "scan", tmp_path).code == 0


def adapter(folder: Path, **settings: Any) -> Path:
    base = folder / "base"
    base.mkdir()
    written(base)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    save_file(
        {f"{name}A.weight": torch.randn(2, 8), f"{name}B.weight": torch.randn(8, 2)},
        folder / "adapter_model.safetensors",
    )
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "base"}
    (folder / "adapter_config.json").write_text(json.dumps(told | settings))
    return folder


@pytest.mark.parametrize(
    "alpha", [10**400, -(10**400), 1e300, math.nan, math.inf, True, "4", None, [4], {}]
)
def test_an_alpha_that_is_no_scale_is_refused(run: Run, tmp_path: Path, alpha: Any) -> None:
    answer = soon(run, "scan", adapter(tmp_path, lora_alpha=alpha))
    assert answer.code == 2
    assert "lora_alpha" in answer.err
    assert len(answer.err) < 600


def test_an_adapter_on_a_weight_of_integers_is_read(run: Run, tmp_path: Path) -> None:
    adapter(tmp_path)
    state = llama(0)
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file(state | {name: state[name].mul(9).int()}, tmp_path / "base/model.safetensors")
    assert soon(run, "scan", tmp_path).code == 0


def test_a_pattern_of_an_adapter_is_not_run_as_a_regular_expression(
    run: Run, tmp_path: Path
) -> None:
    hostile = {"(a+)+$|((a|a)*)*b": 3, "x" * 5000: 4}
    answer = soon(run, "scan", adapter(tmp_path, alpha_pattern=hostile, rank_pattern=hostile))
    assert answer.code == 2
    assert "only names are supported" in answer.err


def test_an_index_that_names_a_file_of_5000_letters(refused: Any, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "x" * 5000}}))
    with pytest.raises(SourceError, match=r"5,00\d letters"):
        flagscope.inspect(index)


def test_json_larger_than_any_index_is_not_read(tmp_path: Path) -> None:
    written(tmp_path)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**36)  # a hole: it takes no space
    with pytest.raises(CorruptFileError, match="no index or configuration has more"):
        flagscope.inspect(tmp_path)


def safetensors(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_three_million_dimensions_are_refused_at_once(refused: Any, tmp_path: Path) -> None:
    shape = ",".join(["9223372036854775807"] * 3_000_000)
    header = f'{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,0]}}}}'
    begun = time.perf_counter()
    with pytest.raises(CorruptFileError, match="shape"):
        header_entries(header.encode(), len(header) + 8, shown="m.safetensors")
    refused(safetensors(tmp_path / "m.safetensors", header.encode()), CorruptFileError)
    assert time.perf_counter() - begun < 15


def test_a_header_of_braces_alone_is_not_parsed(refused: Any, tmp_path: Path) -> None:
    header = b'{"a":[' + b"{}," * 3_000_000 + b"{}]}"
    with pytest.raises(CorruptFileError, match="more than 2,000,000 tensors"):
        header_entries(header, len(header) + 8, shown="m.safetensors")
    refused(safetensors(tmp_path / "m.safetensors", header), CorruptFileError)


@pytest.mark.parametrize("shape", [(0, 2), (10**9, 0), (2**40, 0)])
def test_what_has_no_entries_has_no_heads_either(
    run: Run, tmp_path: Path, shape: tuple[int, int]
) -> None:
    names = [f"model.layers.0.self_attn.{name}_proj.weight" for name in "qkvo"]
    told = {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name in names}
    safetensors(tmp_path / "m.safetensors", json.dumps(told).encode())
    (tmp_path / "config.json").write_text(
        json.dumps(CONFIG | {"num_attention_heads": shape[0], "num_key_value_heads": shape[0]})
    )
    assert soon(run, "scan", tmp_path).code == 0
    found = flagscope.inspect(tmp_path)
    assert sorted(found.graph.unmapped) == sorted(names)
    assert any("without entries" in note for note in found.notes)


def test_a_million_heads_of_one_row_each_are_not_measured(tmp_path: Path) -> None:
    rows = 10**6
    names = dict.fromkeys("qkv", (rows, 1)) | {"o": (1, rows)}
    shapes = {f"model.layers.0.self_attn.{n}_proj.weight": s for n, s in names.items()}
    from flagscope.arch import build_graph

    config = CONFIG | {"num_attention_heads": rows, "num_key_value_heads": rows, "hidden_size": 1}
    with pytest.raises(ArchitectureError, match=r"would hold 1,000,000 heads"):
        build_graph(shapes, config | {"head_dim": 1})


def npz(path: Path, header: bytes) -> Path:
    header += b" " * (64 - (len(header) + 11) % 64) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 24
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("layers.0.weight.npy", content)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"{" * 5000,
        b"(" * 5000,
        b"-" * 5000 + b"1",
        b"{'descr':'<f4','fortran_order':False,'shape':(True,6)}",
        b"{'descr':'<f4','fortran_order':False,'shape':(2.0,3)}",
        b"{'descr':'<f4','fortran_order':False,'shape':(" + b"1," * 2000 + b"6)}",
        b"{'descr':[('a','<f4',(10**9,))],'fortran_order':False,'shape':(6,)}",
        b"{'descr':('<f4',(1,)*9),'fortran_order':False,'shape':(6,)}",
        b"{'descr':'\xff\x00','fortran_order':False,'shape':(6,)}",
        b"\x00" * 100,
    ],
    ids=range(10),
)
def test_a_header_that_numpy_cannot_parse(refused: Any, tmp_path: Path, header: bytes) -> None:
    refused(npz(tmp_path / "m.npz", header), CorruptFileError, "is not a whole NumPy archive")


def onnx_file(folder: Path, dims: tuple[int, ...], **told: str) -> Path:
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto()
    tensor.name, tensor.data_type, tensor.data_location = "layers.0.weight", 1, 1
    tensor.dims.extend(dims)
    for key, value in told.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    path = folder / "m.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    (folder / "d.bin").write_bytes(bytes(range(64)))
    return path


@pytest.mark.parametrize("dims", [(2**20, 2**20), (2**31, 2**31), (3, 7), (1,) * 100])
def test_external_data_of_no_told_length_must_be_there(
    refused: Any, tmp_path: Path, dims: tuple[int, ...]
) -> None:
    refused(onnx_file(tmp_path, dims, location="d.bin"), CorruptFileError)


@pytest.mark.parametrize("told", [{"offset": "9" * 5000}, {"length": "9" * 5000}, {"offset": "x"}])
def test_external_data_at_a_place_that_is_none(
    refused: Any, tmp_path: Path, told: dict[str, str]
) -> None:
    path = onnx_file(tmp_path, (4, 4), location="d.bin", **told)
    refused(path, CorruptFileError, "beyond the end")


def test_external_data_in_a_file_of_5000_letters(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"5,00\d letters"):
        flagscope.inspect(onnx_file(tmp_path, (3, 2), location="x" * 5000))


FAMILY = """
name = "own"
title = "Own"
[[stacks]]
name = "main"
path = "model.layers.{layer}."
"""


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 10_000,
        "a = " + "9" * 5000,
        "a." * 20_000 + "b = 1",
        FAMILY + "extends = ['llama']",
        "extends = ['llama']" + FAMILY,
        'name = 3\ntitle = "x"',
        FAMILY + "[[stacks.mlp]]\nup = 3",
        FAMILY + "[stacks.sizes]\nh = [[1]]",
        FAMILY + '[[stacks.mlp]]\nup = {module="u", layout="' + "(" * 900_000 + '"}',
        FAMILY + '[[stacks.mlp]]\nup = {module="u", layout="' + "f " * 400_000 + '"}',
        FAMILY.replace("{layer}", "(a+)+{layer}"),
        FAMILY.replace("{layer}", "{a}." * 300),
    ],
    ids=range(12),
)
def test_a_family_file_of_any_kind_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    answer = soon(run, "scan", written(tmp_path), "--family", file)
    assert answer.code in (0, 2)
    assert "internal error" not in answer.err
    assert " failed: " not in answer.err
    assert len(answer.err) < 3000


def test_a_compressed_array_may_not_unpack_to_far_more_than_it_takes(
    refused: Any, tmp_path: Path
) -> None:
    path = tmp_path / "m.npz"
    np.savez_compressed(path, w=np.zeros((2**13, 2**13), np.float32))
    refused(path, CorruptFileError, "would unpack")


def test_one_number_stands_for_no_gigabyte(refused: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"w": torch.ones(1).expand(2**14, 2**14)}, path)
    refused(path, CorruptFileError, "more than its file")


def test_errors_of_any_length_are_short() -> None:
    assert len(str(FlagscopeError("a " * 10**6))) < 2200
    assert len(str(FlagscopeError("a" * 10**6))) < 400


def test_many_tensors_take_a_time_that_grows_with_their_number(tmp_path: Path) -> None:
    taken = []
    for count in (2_500, 10_000):
        told = {
            f"t.{i}.w": {"dtype": "U8", "shape": [1, 1], "data_offsets": [i, i + 1]}
            for i in range(count)
        }
        path = safetensors(
            tmp_path / f"{count}.safetensors", json.dumps(told).encode(), b"1" * count
        )
        begun = time.process_time()
        assert flagscope.inspect(path).coverage is not None
        taken.append(time.process_time() - begun)
    assert taken[1] < 10 * taken[0]  # four times as many; a square would take sixteen times as long
