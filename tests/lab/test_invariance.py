"""The forward pass against transformers, planted movements, and a small run of the experiment."""

import json
from dataclasses import replace

import pytest
import torch

from flagscope.demo import final
from flagscope.lab import Measured, Options
from flagscope.lab.experiments.invariance import EXPERIMENT
from flagscope.lab.rewriting import demo_model, gpt2_logits, movements


def test_forward_pass_is_that_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = json.loads((final().parent / "config.json").read_text())
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config)).double().eval()
    ours = demo_model()
    plain = {name.removeprefix("transformer."): w for name, w in ours.state.items()}
    missing = model.transformer.load_state_dict(plain, strict=False).missing_keys
    assert not [name for name in missing if not name.endswith(("attn.bias", "masked_bias"))]
    tokens = torch.arange(40)[None] % config["vocab_size"]
    with torch.no_grad():
        wanted = model(input_ids=tokens).logits
    found = gpt2_logits(ours.state, config, tokens)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def cell(name: str, **settings):
    (found,) = [c for c in EXPERIMENT.cells(Options()) if c.name == name]
    return replace(found, settings=found.settings | {"limit": 48, "width": 16} | settings)


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    cells = [cell(n, steps=30, seeds=[0, 1, 2]) for n in ("linear", "relu")]
    # 2λt = 40, as in the full run
    cells.append(cell("ridge-linear", seeds=[0, 1]))
    return [Measured(c, EXPERIMENT.measure(c, lambda _: None), 1.0) for c in cells]


def test_a_record_does_not_move_against_itself():
    model = demo_model()
    pairs = model.pairs(model.state)
    assert not any(any(movements(one, one).values()) for one in pairs.values())


def test_what_moves_is_what_theory_says(measured):
    rows = [(m.cell.name, row) for m in measured for row in m.values["rows"]]
    for name, row in rows:
        accuracy = 1e-5 if name == "ridge-linear" else 1e-12
        assert row["outputs"] < accuracy
        if name != "ridge-linear" and row["group"] in ("permutation", "orthogonal"):
            assert max(row["moved"].values()) < 1e-8
        if row["group"] in ("gl", "scaling"):
            assert row["moved"]["kernel_intersection"] == 0
            assert row["moved"]["imbalance"] > 1e-3


def test_intersection_dimension_does_not_survive_a_general_change(measured):
    (ridge,) = [m for m in measured if m.cell.name == "ridge-linear"]
    for row in ridge.values["rows"]:
        (before,), (after,) = (
            row["before"]["intersection_exact"],
            row["after"]["intersection_exact"],
        )
        assert before >= 3
        assert after == (before if row["group"] == "orthogonal" else 0)


def test_verdicts(measured):
    verdicts = {f.claim: f.verdict for f in EXPERIMENT.conclude(measured)}
    assert verdicts["dim(write ∩ read) is invariant under every change of basis"] == "refuted"
    assert verdicts["dim(write ∩ kernel) is invariant under every change of basis"] == "confirmed"
    assert verdicts["Any raw alignment can be made perfect for nothing"] == "confirmed"
    assert verdicts["No change made here alters what a network computes"] == "confirmed"
    # a network that computes something else after all
    measured[0].values["rows"][0]["outputs"] = 1.0
    first, *_ = EXPERIMENT.conclude(measured)
    assert first.verdict != "confirmed"
