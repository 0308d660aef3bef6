"""The forward pass against transformers, planted movements, and a small run of the experiment."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from flagscope.demo import final
from flagscope.lab import Measured, Options
from flagscope.lab.data import load_images
from flagscope.lab.experiments.invariance.experiment import EXPERIMENT
from flagscope.lab.experiments.invariance.rewriting import demo_model, gpt2_logits, movements


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


def test_ridge_trains_on_pictures_of_any_scale(tmp_path):
    """Pictures as bright as MNIST's, whose covariance has a tenfold eigenvalue of the digits'."""
    digits = load_images(limit=48)
    pixels = (255 * digits.inputs).reshape(-1, 8, 8).repeat_interleave(4, 1)
    file = tmp_path / "bright.npz"
    np.savez(file, x_train=pixels.numpy(), y_train=digits.labels.numpy())
    (found,) = [c for c in EXPERIMENT.cells(Options(data=str(file))) if c.name == "ridge-linear"]
    small = replace(found, settings=found.settings | {"seeds": [0], "steps": 150})
    rows = EXPERIMENT.measure(small, lambda _: None)["rows"]
    assert max(row["outputs"] for row in rows) < 1e-4


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
    # a network that computes a little else: the mean is within the bound, it is not
    measured[0].values["rows"][0]["outputs"] = 2e-12
    first, *_ = EXPERIMENT.conclude(measured)
    assert first.estimates[0].value < 1e-12
    assert (first.verdict, first.estimates[0].n) == ("open", 3)
    # and one that computes something else after all
    measured[0].values["rows"][0]["outputs"] = 1.0
    first, *_ = EXPERIMENT.conclude(measured)
    assert first.verdict != "confirmed"
