"""Intruder dimensions: planted ones, false positives, and peft's own count."""

import re

import pytest
import torch
from torch import nn

from comparison.change.networks import BERT, bert, compared, one
from comparison.change.test_changed_maps import UP, moved, with_signal

NAMES = {
    "query": "attention.self.query.weight", "value": "attention.self.value.weight",
    "up": "intermediate.dense.weight", "down": "output.dense.weight",
}  # fmt: skip


def test_a_planted_direction_is_an_intruder_on_both_sides():
    a = with_signal(bert())
    b = {name: value.clone() for name, value in a.items()}
    u, _, vt = torch.linalg.svd(a[UP], full_matrices=False)
    # Orthogonal to all that leads.
    b[UP] += 52.0 * torch.outer(u[:, 20], vt[25])
    change = one(compared(a, b, BERT), "0.up")
    assert (change.intruders_b.write, change.intruders_b.read) == (1, 1)
    assert change.intruders_b.log10_p < -3
    assert change.intruders_b.p_adjusted < 0.01
    assert (change.intruders_a.write, change.intruders_a.read) == (0, 0)


@pytest.mark.parametrize("size", [0.01, 0.03, 0.1, 0.3])
def test_false_positives_under_noise(size):
    # Per map at most 1 %, whatever the number of directions: here none in 96.
    a = with_signal(bert())
    counted = tested = significant = 0
    for seed in range(4):
        for change in compared(a, moved(a, size, seed=50 + seed), BERT).maps:
            for found in (change.intruders_a, change.intruders_b):
                tested += found.tested
                counted += (found.write or 0) + (found.read or 0)
                significant += found.p is not None and found.p < 0.05
    assert tested > 300
    assert counted == 0
    assert significant <= 0.05 * 96 + 4 * (0.0475 * 96) ** 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_false_positives_under_rounding(dtype):
    a = {name: value.float() for name, value in with_signal(bert()).items()}
    b = {name: value.to(dtype) for name, value in a.items()}
    record = compared(a, b, BERT)
    for change in record.maps:
        for found in (change.intruders_a, change.intruders_b):
            assert found.tested >= 3
            assert (found.write, found.read, found.peft_count) == (0, 0, 0)
            assert found.p > 0.01


def test_near_equal_values_make_no_intruder():
    # Three equal values: their single directions are arbitrary, and the epsilon rule counts them.
    draw = torch.Generator().manual_seed(2)
    a = bert()
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=draw, dtype=torch.float64))[0]
            for n in (48, 32))  # fmt: skip
    values = torch.cat([torch.full((12,), 40.0), torch.linspace(2, 1, 20)]).double()
    a[UP] = (u[:, :32] * values) @ v.mT
    b = moved(a, 1e-3)
    change = one(compared(a, b, BERT), "0.up")
    assert change.intruders_b.tested >= 12
    assert (change.intruders_b.write, change.intruders_b.read) == (0, 0)


class Small(nn.Module):
    """The maps of a layer in a chain, to be trained."""

    def __init__(self):
        super().__init__()
        self.query, self.value = nn.Linear(32, 32), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, x):
        return self.down(torch.tanh(self.up(torch.tanh(self.value(torch.tanh(self.query(x)))))))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("rank", "rate", "seed"), [(2, 0.1, 0), (8, 0.05, 1), (4, 0.3, 2)])
def test_counts_are_those_of_peft(rank, rate, seed):
    peft = pytest.importorskip("peft")
    intruders = pytest.importorskip("peft.tuners.lora.intruders")
    torch.manual_seed(seed)
    net = Small()
    base = {name: getattr(net, name).weight.detach().clone() for name in NAMES}
    config = peft.LoraConfig(r=rank, lora_alpha=4 * rank, target_modules=list(NAMES))
    model = peft.get_peft_model(net, config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    x = torch.randn(64, 32)
    y = torch.randn(64, 32)
    for _ in range(60):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    lines = []
    intruders.reduce_intruder_dimension(model, logging_sink=lines.append)
    theirs = {}
    for line in lines:
        found = re.match(r".*\b(\w+): (?:Intruders: (\d+)|No intruders)", line)
        if found:
            theirs[found[1]] = int(found[2] or 0)
    model.set_adapter("default")
    a, b = bert(dtype=torch.float32), bert(dtype=torch.float32)
    merged = model.merge_and_unload(adapter_names=["default"])
    for name, tensor in NAMES.items():
        a[f"encoder.layer.0.{tensor}"] = base[name]
        b[f"encoder.layer.0.{tensor}"] = getattr(merged, name).weight.detach().clone()
    record = compared(a, b, BERT)
    roles = {"query": "q", "value": "v", "up": "up", "down": "down"}
    ours = {name: one(record, f"0.{role}").intruders_b.peft_count for name, role in roles.items()}
    assert set(theirs) == set(NAMES)
    assert sum(theirs.values()) > 0
    assert ours == theirs
