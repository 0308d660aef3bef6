"""Initialisers are those of the architectures; ranks, intervals and verdicts follow their rules."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats
from torch import nn
from transformers import BertConfig, BertModel

from flagscope.lab import Options, run_lab
from flagscope.lab.experiment import Cell, Measured
from flagscope.lab.experiments.published_checkpoints.experiment import EXPERIMENT
from flagscope.lab.experiments.published_checkpoints.findings import beyond, prediction_interval
from flagscope.lab.experiments.published_checkpoints.published import (
    PUBLISHED,
    Published,
    bert_initial,
    resnet_initial,
)
from flagscope.lab.pages import write_pages
from flagscope.null import mean_overlap

TINY = {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3,
    "vocab_size": 11, "max_position_embeddings": 8, "initializer_range": 0.05,
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def bert():
    """A fresh model of transformers' own initialiser."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BertModel(BertConfig(**TINY)).state_dict()


def test_bert_is_initialised_as_transformers_does(bert):
    for name, theirs in bert.items():
        if not theirs.is_floating_point():
            continue
        ours = bert_initial(name, theirs, TINY, generator())
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if theirs.ndim == 1:
            assert torch.equal(ours, theirs), name
        elif theirs.numel() > 500:
            for drawn in (ours, theirs):  # standard error of a standard deviation: σ/√(2n)
                error = drawn.std() / TINY["initializer_range"] - 1
                assert abs(error) < 4 / math.sqrt(2 * theirs.numel()), name


def test_resnet_is_initialised_as_its_authors_did():
    theirs = torch.empty(64, 32, 3, 3)
    nn.init.kaiming_normal_(theirs, generator=generator(1))
    ours = resnet_initial("layer1.0.conv1.weight", theirs, {}, generator())
    assert abs(float(ours.std() / theirs.std()) - 1) < 4 / math.sqrt(theirs.numel())
    values = {
        name: resnet_initial(f"bn1.{name}", torch.zeros(3), {}, generator()).tolist()
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    assert values == {"weight": [1] * 3, "bias": [0] * 3, "running_mean": [0] * 3,
                      "running_var": [1] * 3}  # fmt: skip


@pytest.fixture
def folder(bert, tmp_path):
    """A published model whose heads were trained to read the same: all queries are those of one."""
    state = {name: w.clone() for name, w in bert.items() if w.is_floating_point()}
    for layer in range(3):
        q = state[f"encoder.layer.{layer}.attention.self.query.weight"]
        k = state[f"encoder.layer.{layer}.attention.self.key.weight"]
        for head in range(4):
            rows = slice(8 * head, 8 * head + 8)
            q[rows] = torch.randn(8, 8, generator=generator(head)) @ q[:8]
            k[rows] = q[rows]  # balanced, so that ρ is 1 and C is 0
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY | {"model_type": "bert"}))
    return tmp_path


@pytest.fixture
def planted(folder, monkeypatch):
    """That model in the place of the published ones, of which the others are absent."""
    there = Published("a planted BERT", lambda: folder / "model.safetensors", bert_initial)
    gone = Published("a lost model", lambda: None, bert_initial)
    for name in PUBLISHED:
        monkeypatch.setitem(PUBLISHED, name, there if name == "minilm" else gone)
    return there


def test_a_checkpoint_gives_its_first_layers_and_their_config(planted):
    state, config = planted.trained(layers=2)
    assert config["num_hidden_layers"] == 2
    assert {name.split(".")[2] for name in state} == {"0", "1"}
    first, again, other = (planted.initial(seed, layers=2)[0] for seed in (1, 1, 2))
    name = "encoder.layer.1.output.dense.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], state[name])


def test_what_is_absent_is_skipped_and_named_on_the_page(planted, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        (result,) = run_lab(["published-checkpoints"], Options(quick=True), out=tmp_path / "out",
                            executor=pool)  # fmt: skip
    assert not result.failures
    (page,) = write_pages(tmp_path / "out", tmp_path)
    text = page.read_text()
    assert "Absent and skipped: a lost model, a lost model." in text
    first = result.findings[0]
    assert [e.name for e in first.estimates] == ["share of places, a planted BERT"]
    assert 0.25 <= first.estimates[0].value <= 1  # Q and K were planted, V and O are random


def test_nothing_there_is_open_and_no_failure(monkeypatch, tmp_path):
    gone = Published("a lost model", lambda: None, bert_initial)
    for name in PUBLISHED:
        monkeypatch.setitem(PUBLISHED, name, gone)
    with ThreadPoolExecutor(1) as pool:
        (result,) = run_lab(["published-checkpoints"], out=tmp_path, executor=pool)
    assert (result.verdict, len(result.failures)) == ("open", 0)


def test_a_scan_sees_what_was_planted(planted):
    cells = {cell.name: cell for cell in EXPERIMENT.cells(Options(quick=True))}
    assert cells["minilm-trained"].settings["scan"]["rank"] == "participation"
    trained = EXPERIMENT.measure(cells["minilm-trained"], lambda _: None)
    start = EXPERIMENT.measure(cells["minilm-initial-3"], lambda _: None)
    places = trained["places"]
    assert places["R_q"] == pytest.approx([4, 4], rel=1e-4)  # d / r: all heads read one space
    assert places["rho_qk"] == pytest.approx([1, 1], rel=1e-5)
    assert places["C_qk"] == pytest.approx([0, 0], abs=1e-6)
    assert trained["heads"] == [4, 32]
    assert trained["flagged"]["qk"] == [8, 8]
    assert max(abs(r - 1) for r in start["places"]["R_q"]) < 0.5
    assert trained["dtype"] == start["dtype"] == "torch.float32"


def test_no_number_depends_on_the_rank_rule(planted):
    """Its page names no rule: heads are read at their numerical rank, Grams whole."""
    (cell,) = [c for c in EXPERIMENT.cells(Options(quick=True)) if c.name == "minilm-trained"]
    other = cell.settings | {"scan": cell.settings["scan"] | {"rank": "numerical"}}
    found = EXPERIMENT.measure(cell, lambda _: None)
    assert EXPERIMENT.measure(replace(cell, settings=other), lambda _: None) == found


def test_beyond_all_draws_has_the_probability_of_ranks():
    draws = np.random.default_rng(0).standard_normal((20, 4000))
    trained = np.random.default_rng(1).standard_normal(4000)
    share = np.mean(beyond(trained.tolist(), draws.tolist()))
    expected = 2 / 21
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)


def test_the_prediction_interval_covers_one_more_draw():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(4000):
        one = prediction_interval("x", float(rng.normal()), rng.normal(size=6).tolist())
        inside += one.low <= 0 <= one.high
    assert abs(inside / 4000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)
    draws = [1.0, 2.0, 4.0]
    one = prediction_interval("x", 5.0, draws)  # t of two degrees: 4.302653
    assert one.value == pytest.approx(5 - fmean(draws))
    assert one.high - one.value == pytest.approx(4.302653 * stdev(draws) * math.sqrt(4 / 3))
    assert prediction_interval("x", 5.0, [1.0]).low is None


def measured(*, trained=1.0, noise=0.01, flagged=0.05):
    """All three networks; trained ones differ from their start by `trained` in the known ways."""
    found = []
    rng = np.random.default_rng(0)
    # Quantiles of a normal law, so that 5 % are beyond its critical values exactly.
    deviates = iter(rng.permutation(stats.norm.ppf((np.arange(1512) + 0.5) / 1512)))
    for name in PUBLISHED:
        conv = name == "resnet20"
        kinds = ["conv"] if conv else ["qk", "ov", "mlp"]
        for seed in (None, *range(20)):
            here = trained if seed is None else 0.0
            values = {"places": {}, "means": {}, "flagged": {}, "dtype": "torch.float32"}
            for kind in kinds:
                count = 400
                share = 1.0 if here else flagged
                values["flagged"][kind] = [round(share * count), count]
                moves = {
                    "C": (1, here if kind == "mlp" else -here),
                    "rho": (0, here),
                    "nu": (1, here),
                }
                for letter, (start, move) in moves.items():
                    layers = start + move + noise * rng.standard_normal(9)
                    values["places"][f"{letter}_{kind}"] = layers.tolist()
                    values["means"][f"{letter}_{kind}"] = start + 1e-3 * rng.standard_normal()
            if not conv:
                values["heads"] = [12, 384]
                for space in "qkvo":
                    sd = mean_overlap([32] * 12, 384).sd
                    layers = [1 + here + sd * next(deviates) for _ in range(9)]
                    values["places"][f"R_{space}"] = layers
            settings = {"checkpoint": name, "seed": seed, "sha256": "x"}
            found.append(Measured(Cell(f"{name}-{seed}", settings), values, 1.0))
    return found


def verdicts(**settings):
    return [finding.verdict for finding in EXPERIMENT.conclude(measured(**settings))]


def test_verdicts_follow_what_was_measured():
    assert verdicts() == ["confirmed"] * 10
    untrained = verdicts(trained=0.0)
    assert untrained[:4] == ["refuted"] * 4
    assert untrained[4] == "refuted"  # nothing is flagged more often than by chance
    assert "confirmed" not in untrained[7:]
    assert verdicts(flagged=0.3)[5] == "refuted"
    assert verdicts(trained=-1.0)[7:] == ["refuted"] * 3


def test_words_name_the_places_that_are_inside():
    cells = measured()
    (mini,) = [m for m in cells if m.cell.name == "minilm-None"]
    mini.values["places"]["rho_ov"][4] = 0.0
    (finding,) = [f for f in EXPERIMENT.conclude(cells) if f.claim.startswith("ρ works")]
    assert "By chance it would be 9.5% of the places." in finding.words
    assert "Not beyond: all-MiniLM-L6-v2 V-O 1." in finding.words
    assert finding.estimates[0].value == pytest.approx(26 / 27)


def test_layers_that_go_the_other_way_are_named():
    cells = measured()
    (mini,) = [m for m in cells if m.cell.name == "minilm-None"]
    mini.values["places"]["R_o"][5] = 0.5
    mini.values["places"]["C_qk"][0] = 2.0
    words = {f.claim[:12]: f.words for f in EXPERIMENT.conclude(cells)[7:]}
    assert (
        "other way: R_O less its initialisation, all-MiniLM-L6-v2, in 1 of 9."
        in words["Heads overla"]
    )
    assert "C of Q-K, all-MiniLM-L6-v2, in 1 of 9." in words["Training low"]
    assert "the other way: none." in words["Training cor"]


def test_table_and_figures_come_from_what_was_measured():
    cells = measured()
    table = EXPERIMENT.table(cells)
    assert len(table) == 2 * 21 * (9 + 4) * 9 + 21 * 3 * 9
    assert set(EXPERIMENT.draw(cells, ())) == {name for name, _ in EXPERIMENT.figures}
