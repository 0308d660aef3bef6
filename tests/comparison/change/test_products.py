"""Which heads moved: products of heads, against gauge changes and formed products."""

import math

import pytest
import torch

from comparison.change.networks import BERT, LLAMA, bert, compared, llama
from flagscope.arch import Rotary

Q, K = ("encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.key.weight")
V, OUT = ("encoder.layer.0.attention.self.value.weight",
        "encoder.layer.0.attention.output.dense.weight")  # fmt: skip


def copy(weights):
    return {name: value.clone() for name, value in weights.items()}


def product(record, name):
    return next(p for p in record.products if p.name == name)


def test_formed_products():
    a, b = bert(), copy(bert())
    draw = torch.Generator().manual_seed(4)
    b[V][8:16] += 0.3 * torch.randn(8, 32, generator=draw, dtype=torch.float64)
    b[K][24:] += 0.1 * torch.randn(8, 32, generator=draw, dtype=torch.float64)
    record = compared(a, b, BERT)
    ov = product(record, "layer.0.head.1.ov")
    before = a[OUT][:, 8:16] @ a[V][8:16]
    after = b[OUT][:, 8:16] @ b[V][8:16]
    assert ov.change == pytest.approx(float((after - before).norm()), rel=1e-12)
    assert ov.relative_b == pytest.approx(float((after - before).norm() / after.norm()), rel=1e-12)
    qk = product(record, "layer.0.head.3.qk")
    before, after = a[K][24:].mT @ a[Q][24:], b[K][24:].mT @ b[Q][24:]
    assert qk.change == pytest.approx(float((after - before).norm()), rel=1e-12)
    assert (ov.rank, qk.rank) == (1, 1)
    still = [p for p in record.products if p not in (ov, qk)]
    assert {p.status for p in still} == {"identical"}
    assert {p.rank for p in still} == {None}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_change_of_basis_is_no_move_of_a_head(dtype):
    a = bert()
    b = copy(a)
    draw = torch.Generator().manual_seed(6)
    for head in range(4):
        rows = slice(8 * head, 8 * head + 8)
        g = torch.randn(8, 8, generator=draw, dtype=torch.float64)
        b[V][rows] = g @ a[V][rows]
        b[OUT][:, rows] = a[OUT][:, rows] @ torch.linalg.inv(g)
        b[Q][rows] = g @ a[Q][rows]
        b[K][rows] = torch.linalg.inv(g).mT @ a[K][rows]
    stored = [{name: value.to(dtype) for name, value in side.items()} for side in (a, b)]
    record = compared(*stored, BERT)
    for change in record.products[:8]:
        assert change.raw_relative_a > 0.5
        if dtype == torch.float64:
            # The change of basis itself was computed in no better precision than it is stored in.
            assert change.relative_a < 1e-13
            continue
        assert change.status == "moved less than rounding can tell"
        assert change.relative_a < 1.4 * change.floor
        assert change.rank is None


def test_rotary_heads_are_compared_over_all_positions():
    a, b = llama(), copy(llama())
    draw = torch.Generator().manual_seed(8)
    name = "model.layers.0.self_attn.q_proj.weight"
    b[name] += 0.2 * torch.randn(32, 32, generator=draw, dtype=torch.float64)
    change = product(compared(a, b, LLAMA), "layer.0.head.3.qk")
    assert change.over_positions
    planes = Rotary(8, "half").planes()
    key = a["model.layers.0.self_attn.k_proj.weight"][8:16]
    total = torch.zeros(2, dtype=torch.float64)
    # Independent angles of all planes: the mean over sums and differences by quarter turns.
    for angles in torch.cartesian_prod(*[torch.arange(4).double()] * 4):
        turn = torch.eye(8, dtype=torch.float64)
        for (i, j), angle in zip(planes, (angles * math.pi / 2).tolist(), strict=True):
            turn[i, i] = turn[j, j] = math.cos(angle)
            turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        before, after = (key.mT @ turn @ side[name][24:] for side in (a, b))
        total += torch.stack([(after - before).square().sum(), before.square().sum()])
    total = (total / 256).sqrt()
    assert change.change == pytest.approx(float(total[0]), rel=1e-12)
    assert change.norm_a == pytest.approx(float(total[1]), rel=1e-12)


def test_rotary_gauge():
    a, b = llama(), copy(llama())
    q, k = (f"model.layers.0.self_attn.{x}_proj.weight" for x in "qk")
    turn = torch.zeros(8, 8, dtype=torch.float64)
    for (i, j), (x, y) in zip(
        Rotary(8, "half").planes(), [(1.2, 0.3), (0.4, -2.0), (-1.0, 0.1), (3.0, 1.0)], strict=True
    ):
        turn[i, i] = turn[j, j] = x
        turn[i, j], turn[j, i] = -y, y
    b[k][8:] = torch.linalg.inv(turn).mT @ a[k][8:]
    for head in (2, 3):
        rows = slice(8 * head, 8 * head + 8)
        b[q][rows] = turn @ a[q][rows]
    record = compared(*({name: x.float() for name, x in side.items()} for side in (a, b)), LLAMA)
    for head in (2, 3):
        change = product(record, f"layer.0.head.{head}.qk")
        assert change.status == "moved less than rounding can tell"
        assert change.raw_relative_a > 0.3


def test_ranks_order_the_heads_that_moved():
    a, b = bert(), copy(bert())
    for head, size in enumerate((0.1, 0.4, 0.2, 0.3)):
        b[V][8 * head : 8 * head + 8] *= 1 + size
    record = compared(a, b, BERT)
    ranks = [product(record, f"layer.0.head.{head}.ov").rank for head in range(4)]
    assert ranks == [4, 1, 3, 2]
    assert product(record, "layer.0.head.1.ov").relative_a == pytest.approx(0.4, rel=1e-12)
