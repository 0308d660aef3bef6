"""Every command on real and on tiny models of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cli.conftest import Run, perceptron
from flagscope.api import inspection
from flagscope.checkpoint.base import Checkpoint
from flagscope.engine import TASK_MEMORY, Estimate

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TINY = {
    "gpt2": transformers.GPT2Config(
        n_layer=2, n_head=2, n_embd=16, vocab_size=32, n_positions=8, bos_token_id=0, eos_token_id=1
    ),
    "llama": transformers.LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=16,
        intermediate_size=24,
        vocab_size=32,
        max_position_embeddings=8,
    ),
}
PAIRS = {
    "gpt2": {"qk": 4, "ov": 4, "mlp": 2, "residual": 10},
    "llama": {"qk": 8, "ov": 8, "mlp": 4, "residual": 14},
}
HEADS = {"gpt2": "2 q k v o", "llama": "4 q o, 2 k v"}


@pytest.fixture(params=sorted(TINY))
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    transformers.AutoModel.from_config(TINY[request.param]).save_pretrained(
        tmp_path / request.param
    )
    return tmp_path / request.param


def test_tiny_transformers(run: Run, tiny: Path) -> None:
    found = json.loads(run("scan", tiny, "--json", "-").out)
    assert found["family"] == tiny.name
    kinds = [pair["kind"] for pair in found["pairs"]]
    assert {kind: kinds.count(kind) for kind in kinds} == PAIRS[tiny.name]
    assert found["failures"] == []
    listed = run("inspect", tiny)
    assert listed.code == 0
    assert listed.out.count(HEADS[tiny.name]) == 2
    assert run("scan", tiny).code == 0


def test_heads_across_layers(run: Run, tiny: Path, tmp_path: Path) -> None:
    answer = run("heads", tiny, "--top", 2, "--spaces", "q, o")
    assert answer.code == 0
    assert "near-copies" in answer.out.splitlines()[1]
    listed = [line.split() for line in answer.out.splitlines() if line.startswith("query space")]
    assert len(listed) == 3  # the space, and two pairs
    assert "\nvalue space" not in answer.out
    assert "not looked at: The key and value spaces were not asked for." in answer.out
    found = json.loads(run("heads", tiny, "--json", "-").out)
    assert found["schema"] == "flagscope.heads/1"
    assert [space["space"] for space in found["spaces"]] == ["q", "k", "v", "o"]
    table = tmp_path / "pairs.csv"
    assert run("heads", tiny, "--csv", table, "--quiet").out == ""
    assert table.read_text().startswith("stack,space,first,second,overlap_ratio")
    assert run("heads", tiny, "--csv", "-", "--csv-table", "summary").out.startswith("stack,")
    page = tmp_path / "heads.html"
    assert run("heads", tiny, "--html", page, "--title", "Small & tiny").code == 0
    assert ">Heads of Small &amp; tiny</h1>" in page.read_text(encoding="utf-8")
    wrong = run("heads", tiny, "--spaces", "q,x")
    assert wrong.code == 2
    assert "spaces names 'x'" in wrong.err
    small = run("heads", tiny, "--memory", "1k")
    assert small.code == 2
    assert "MB at least" in small.err


def test_heads_of_a_network_without_any(run: Run, resnet: Path) -> None:
    answer = run("heads", resnet)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[1] == (
        "No attention heads were found in this model, so there is nothing to compare."
    )
    assert "times chance" not in answer.out


def test_heads_of_a_post_norm_stack_have_their_caveat(run: Run, minilm: Path) -> None:
    answer = run("heads", minilm, "--spaces", "k").out
    assert "caution: Post-norm (encoder)" in answer
    rows = [line.split() for line in answer.splitlines() if line.startswith("key space  L")]
    assert rows
    for row in rows:
        across = row[2].partition("H")[0] != row[3].partition("H")[0]
        assert (row[-2:] == ["not", "common"]) == across


def test_inspect_lists_the_maps(run: Run, tiny: Path) -> None:
    rows = run("inspect", tiny, "--maps").out.splitlines()
    if tiny.name == "gpt2":
        row = next(line for line in rows if line.startswith("h.0.attn.c_attn.weight  k "))
        assert " ".join(row.split()[1:]) == "k 2 8 × 16 d (three h k), three = 1"
    else:
        row = next(line for line in rows if line.startswith("layers.1.self_attn.k_proj.weight"))
        assert " ".join(row.split()[1:]) == "k 2 4 × 16 (g k) d"


def test_inspect_estimates_a_scan(run: Run, tiny: Path) -> None:
    shown = run("inspect", tiny).out
    assert "a scan on this machine: about " in shown
    assert shown.count("assumed: ") >= 4
    found = json.loads(run("inspect", tiny, "--json", "-").out)
    weights = load_file(tiny / "model.safetensors")
    assert found["parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert found["estimate"]["seconds"] > 0
    assert found["estimate"]["bytes_memory"] > found["tasks"][0]["bytes_read"]
    assert found["estimate"]["assumptions"]
    assert found["flops"] == pytest.approx(sum(task["flops"] for task in found["tasks"]))
    assert json.loads(run("inspect", tiny, "--no-estimate", "--json", "-").out)["estimate"] is None
    assert "a scan on this machine" not in run("inspect", tiny, "--no-estimate").out


def test_inspect_estimates_the_scan_that_its_options_describe(
    run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int | None, int]] = []

    def estimated(tasks: object, tensors: object, *, workers: int | None, memory: int) -> Estimate:
        asked.append((workers, memory))
        return Estimate(1.0, None, 1, 1, ())

    monkeypatch.setattr(inspection, "estimated", estimated)
    usual = json.loads(run("inspect", tiny, "--json", "-").out)
    options = ("--workers", 1, "--memory", "5GB", "--precision", "float32")
    other = json.loads(run("inspect", tiny, *options, "--json", "-").out)
    assert asked == [(None, TASK_MEMORY), (1, 5 * 10**9)]
    # Maps of 16 dimensions are measured in double precision unless told otherwise.
    assert other["tasks"][0]["bytes_working"] < usual["tasks"][0]["bytes_working"]


def saved(state: dict[str, torch.Tensor], folder: Path, ending: str) -> Path:
    path = folder / f"net{ending}"
    if ending == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        torch.save(state, path, _use_new_zipfile_serialization=ending != ".th")
    return path


@pytest.mark.parametrize("ending", [".npz", ".pt", ".th"])
def test_formats_agree(run: Run, mlp: Path, tmp_path: Path, ending: str) -> None:
    one, other = (
        json.loads(run("scan", path, "--json", "-").out)
        for path in (mlp, saved(perceptron(), tmp_path, ending))
    )
    for part in ("run", "source"):
        del one[part], other[part]
    assert one == other


def test_a_config_says_what_lies_between(run: Run, mlp: Path, tmp_path: Path) -> None:
    (tmp_path / "relu.json").write_text('{"activation": "relu"}')
    found = json.loads(run("scan", mlp, "--config", tmp_path / "relu.json", "--json", "-").out)
    assert {pair["freedom"] for pair in found["pairs"]} == {"scaling"}


def test_minilm(run: Run, minilm: Path) -> None:
    answer = run("scan", minilm)
    assert answer.code == 0
    assert "family bert, 22,713,216 parameters, float32; 150 pairs, 24 head groups" in answer.out


def test_resnet(run: Run, resnet: Path) -> None:
    answer = run("scan", resnet, "--json", "-")
    pairs = json.loads(answer.out)["pairs"]
    ratios = [pair["commutator_ratio"] for pair in pairs if pair["kind"] == "conv"]
    expected = [0.66, 0.83, 0.69, 1.30, 0.74, 1.29, 0.76, 0.73, 1.05]
    assert ratios == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("options", [[], ["--maps"], ["--all"], ["--json", "-"]])
def test_inspect_reads_no_tensor(
    run: Run, minilm: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    read: list[object] = []
    for reader in (Checkpoint, *Checkpoint.__subclasses__()):
        for name in {"read", "_read"} & set(vars(reader)):
            monkeypatch.setattr(reader, name, lambda *call: read.append(call))
    assert run("inspect", minilm, "--no-estimate", *options).code == 0
    assert read == []
    assert run("scan", minilm, "--quiet").code != 0
    assert read != []


def test_families(run: Run) -> None:
    shown = run("families").out
    listed = json.loads(run("families", "--json").out)
    names = [family["name"] for family in listed["families"]]
    assert {"bert", "gpt2", "llama", "gpt_neox", "vit", "mlp", "resnet"} <= set(names)
    assert all(f"\n{name} " in shown for name in names)
    assert len(names) >= 45
    proven = {family["name"]: family["proven"] for family in listed["families"]}
    assert {"mlp gelu_new permutation", "ov linear gl", "qk linear gl"} <= set(
        proven["gpt2"]["changes"]
    )
    assert proven["vit"]["saved"] == "proven"
    assert {"safetensors", "torch", "npz", "hub"} <= set(listed["formats"])


def test_demo(run: Run, tmp_path: Path) -> None:
    from flagscope.demo import final
    from flagscope.errors import MissingFileError

    try:
        final()
    except MissingFileError:
        pytest.skip("the bundled model is not here")
    answer = run("demo")
    assert answer.code == 0
    assert "family gpt2" in answer.out
    assert "--html report.html" in answer.err
    answer = run("demo", "--html", tmp_path / "report.html")
    assert answer.err == f"wrote {tmp_path / 'report.html'}\n"
