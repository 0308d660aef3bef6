"""The lab's GPT computes what transformers' GPT-2 computes, and scans as one."""

import json

import pytest
import torch

import flagscope
from flagscope import demo
from flagscope.errors import InputError
from flagscope.lab.experiments.pruning.bundled_gpt import bundled_gpt
from flagscope.lab.gpt import GPTShape, initial_state, logits, mean_loss
from flagscope.lab.rank_rule import LAB_RULE

SHAPE = GPTShape(vocab_size=11, n_layer=2, n_head=3, n_embd=12, n_positions=8)


def weights(shape=SHAPE, seed=0, spread=10.0):
    """Weights away from the small initial ones, biases and gains too."""
    generator = torch.Generator().manual_seed(seed)
    state = initial_state(shape, generator)
    return {
        name: spread * weight.double()
        + 0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        for name, weight in state.items()
    }


def tokens(shape=SHAPE, rows=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(shape.vocab_size, (rows, shape.n_positions), generator=generator)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_logits_are_those_of_transformers(activation):
    transformers = pytest.importorskip("transformers")
    shape = GPTShape(11, n_layer=2, n_head=3, n_embd=12, activation_function=activation)
    state = weights(shape)
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = transformers.GPT2Config(**shape.config(), **off)
    model = transformers.GPT2LMHeadModel(config).double().eval()
    model.load_state_dict(state | {"lm_head.weight": state["transformer.wte.weight"]})
    with torch.no_grad():
        expected = model(tokens(shape)).logits
    assert (
        logits(state, tokens(shape), shape) - expected
    ).abs().max() < 1e-12 * expected.abs().max()


def test_the_bundled_model_has_its_recorded_loss():
    state, shape, text = bundled_gpt()
    record = json.loads(demo.final().with_name("training.json").read_text())
    if text.sha256 != record["text"]["sha256"]:
        pytest.skip("this Python has another text")
    with torch.no_grad():
        loss = float(mean_loss(state, text.validation, shape))
    # The record counts a last window of 63 of 34 496 characters too.
    assert loss == pytest.approx(record["checkpoints"][-1]["validation_loss"], abs=2e-3)


def test_the_mean_loss_is_that_of_its_windows():
    text = torch.randint(11, (2 * 8 + 5,), generator=torch.Generator().manual_seed(0))
    state = weights()
    by_hand = []
    for start in (0, 8):
        scores = logits(state, text[None, start : start + 8], SHAPE)[0]
        answers = text[start + 1 : start + 9]
        by_hand += (-scores.log_softmax(-1)[torch.arange(8), answers]).tolist()
    expected = sum(by_hand) / 16
    assert float(mean_loss(state, text, SHAPE, rows=1)) == pytest.approx(expected, rel=1e-12)
    assert float(mean_loss(state, text, SHAPE)) == pytest.approx(expected, rel=1e-12)


def test_a_gate_of_zero_is_a_zero_output_map():
    state = weights()
    gates = torch.ones(2, 3, dtype=torch.float64)
    gates[1, 2] = 0
    without = {name: weight.clone() for name, weight in state.items()}
    without["transformer.h.1.attn.c_proj.weight"][8:12] = 0  # rows of head 2
    gated = logits(state, tokens(), SHAPE, gates=gates)
    assert torch.equal(gated, logits(without, tokens(), SHAPE))
    assert (gated - logits(state, tokens(), SHAPE)).abs().max() > 0.1


def test_initial_weights_are_spread_as_gpt2s():
    shape = GPTShape(103, n_layer=4, n_head=4, n_embd=64)
    state = initial_state(shape, torch.Generator().manual_seed(0))
    for name, expected in (("mlp.c_fc", 0.02), ("mlp.c_proj", 0.02 / 8**0.5)):
        weight = state[f"transformer.h.0.{name}.weight"]
        error = expected / (2 * weight.numel()) ** 0.5
        assert abs(float(weight.std()) - expected) < 4 * error


def test_a_scan_reads_it_as_gpt2():
    result = flagscope.scan(
        weights(), config=SHAPE.config(), only=("pairs", "heads"), rank=LAB_RULE
    ).result
    assert result.family == "gpt2"
    assert result.unmapped == ["transformer.wte.weight", "transformer.wpe.weight"]
    assert len(result.heads) == 4 * SHAPE.n_layer
    kinds = [pair.kind for pair in result.pairs]
    assert {kind: kinds.count(kind) for kind in kinds} == {"qk": 6, "ov": 6, "mlp": 2}
    assert {pair.freedom for pair in result.pairs if pair.kind != "mlp"} == {"gl"}


@pytest.mark.parametrize("wrong", [{"n_embd": 10}, {"activation_function": "tanh"}])
def test_an_impossible_shape_is_refused(wrong):
    with pytest.raises(InputError):
        GPTShape(vocab_size=11, n_head=3, **({"n_embd": 12} | wrong))


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(InputError, match="fills no window"):
        mean_loss(weights(), torch.zeros(8, dtype=torch.long), SHAPE)
