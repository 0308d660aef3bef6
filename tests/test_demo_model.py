"""The bundled model is what its README says: files, configuration, losses, one training."""

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from flagscope import demo
from flagscope.arch import build_graph
from flagscope.checkpoint import open_checkpoint

transformers = pytest.importorskip("transformers")

FOLDER = demo.final().parent
RECORD = json.loads((FOLDER / "training.json").read_text())
CONFIG = json.loads((FOLDER / "config.json").read_text())
SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train_demo.py"
ROWS = pytest.mark.parametrize("row", RECORD["checkpoints"], ids=lambda row: row["file"])


@pytest.fixture(scope="module")
def script():
    """The training script as a module."""
    if not SCRIPT.exists():
        pytest.skip("the training script is not part of this installation")
    spec = importlib.util.spec_from_file_location("train_demo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def corpus(script):
    """The text of the recorded training."""
    corpus = script.corpus()
    if corpus.sha256 != RECORD["text"]["sha256"]:
        pytest.skip(f"this Python's pydoc_data.topics is not that of {RECORD['text']['python']}")
    return corpus


def test_the_record_lists_the_files():
    files = [row["file"] for row in RECORD["checkpoints"]]
    assert [path.name for path in demo.checkpoints()] == files
    assert demo.final().name == files[-1]
    assert len(files) == 5
    assert RECORD["checkpoints"][0]["step"] == 0
    assert RECORD["checkpoints"][-1]["step"] == RECORD["recipe"]["steps"]


@ROWS
def test_a_file_is_small_and_as_recorded(row):
    data = (FOLDER / row["file"]).read_bytes()
    assert len(data) == row["bytes"] <= 1_000_000
    assert hashlib.sha256(data).hexdigest() == row["sha256"]


@ROWS
def test_all_tensors_are_float16_and_finite(row):
    with safe_open(FOLDER / row["file"], framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            tensor = file.get_tensor(name)
            assert tensor.dtype == torch.float16
            assert torch.isfinite(tensor).all(), name


def test_the_configuration_meets_the_demo():
    assert CONFIG["model_type"] == "gpt2"
    assert CONFIG["n_layer"] >= 4
    assert CONFIG["n_head"] >= 4
    assert CONFIG["vocab_size"] == len(RECORD["vocabulary"]) == len(set(RECORD["vocabulary"]))


@ROWS
def test_transformers_loads_a_checkpoint_as_it_is(row, tmp_path):
    shutil.copy(FOLDER / "config.json", tmp_path)
    shutil.copy(FOLDER / row["file"], tmp_path / "model.safetensors")
    model, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.lm_head.weight is model.transformer.wte.weight
    assert model.num_parameters() == RECORD["parameters"]
    stored = load_file(FOLDER / row["file"])
    loaded = model.state_dict()
    assert set(loaded) - set(stored) == {"lm_head.weight"}
    assert all(torch.equal(loaded[name].half(), tensor) for name, tensor in stored.items())


@ROWS
def test_the_recorded_loss_reproduces(row, script, corpus):
    model = script.load(FOLDER / row["file"], transformers.GPT2Config(**CONFIG))
    # Float32 sums of other orders move the mean by less than 1e-5; five digits are recorded.
    loss = script.mean_loss(model, corpus.validation)
    assert loss == pytest.approx(row["validation_loss"], abs=1e-4)


def test_the_text_is_as_recorded(corpus):
    assert corpus.sha256 == RECORD["text"]["sha256"]
    assert corpus.vocabulary == RECORD["vocabulary"]
    assert list(corpus.held_out) == RECORD["text"]["validation_topics"]
    assert corpus.unigram_entropy() == pytest.approx(RECORD["unigram_entropy"], abs=1e-5)
    assert corpus.unigram_loss() == pytest.approx(RECORD["unigram_validation_loss"], abs=1e-5)


def test_the_held_out_text_is_not_in_the_training_text(corpus):
    letters = torch.tensor([ord(character) for character in corpus.vocabulary])

    def text(numbers):
        return "".join(map(chr, letters[numbers].tolist()))

    train, held_out = text(corpus.train), text(corpus.validation)
    width = 80
    windows = {train[i : i + width] for i in range(len(train) - width)}
    shared = sum(held_out[i : i + width] in windows for i in range(len(held_out) - width))
    assert shared == 0


def test_the_five_are_one_training():
    rows = RECORD["checkpoints"]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    for part in ("train_loss", "validation_loss"):
        losses = [row[part] for row in rows]
        assert losses == sorted(losses, reverse=True)
    # Another initialisation has cosine 0 ± 1/√n with these weights; their own start is remembered.
    start, *later = (
        torch.cat(
            [
                tensor.double().flatten()
                for name, tensor in load_file(path).items()
                if name.startswith("transformer.h.") and tensor.ndim == 2
            ]
        )
        for path in demo.checkpoints()
    )
    cosines = [float(torch.cosine_similarity(start, weights, dim=0)) for weights in later]
    assert min(cosines) > 10 / len(start) ** 0.5
    assert cosines == sorted(cosines, reverse=True)


def test_flagscope_reads_and_maps_every_checkpoint():
    for path in demo.checkpoints():
        with open_checkpoint(path) as checkpoint:
            shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
            graph = build_graph(shapes, checkpoint.config)
        assert graph.family == "gpt2"
        assert {head.count for head in graph.heads} == {CONFIG["n_head"]}
        assert len(graph.heads) == 4 * CONFIG["n_layer"]
        inside = [pair for pair in graph.pairs if pair.kind != "residual"]
        assert len(inside) == 3 * CONFIG["n_layer"]


def test_the_model_learned_more_than_frequencies():
    first, last = RECORD["checkpoints"][0], RECORD["checkpoints"][-1]
    assert first["validation_loss"] > RECORD["unigram_entropy"]  # untrained: about ln(vocabulary)
    assert last["validation_loss"] < RECORD["unigram_entropy"] / 2


def test_the_readme_says_what_the_record_says(script):
    assert (FOLDER / "README.md").read_text() == script.readme(RECORD)


def test_training_is_deterministic(script, tmp_path):
    def trained(name):
        options = script.options(
            ["--steps", "5", "--batch", "2", "--warmup", "2", "--out", str(tmp_path / name)]
        )
        options.out.mkdir()
        config = transformers.GPT2Config(**CONFIG | {"n_layer": 1})
        data = script.corpus()
        config.vocab_size = len(data.vocabulary)
        return [path.read_bytes() for path in script.train(data, config, options)]

    first = trained("a")
    assert len(first) == 3  # steps 0, 1 and 5
    assert first == trained("b")
    assert len(set(first)) == 3
