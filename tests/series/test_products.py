"""Motion of products: the gauge is not seen, a head's own turn is, random updates claim nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import flagscope
from comparison.change.networks import BERT, LLAMA, bert, llama
from flagscope.api import track_motion as module
from series.made import State, linear, saved

AT = "encoder.layer.{}.attention."
SELF, OUT = AT + "self.{}.weight", AT + "output.dense.weight"
HEADS, WIDTH, SIZE = 4, 32, 8


def written(states: list[State], folder: Path, config: dict[str, Any] = BERT) -> Path:
    for step, state in enumerate(states):
        at = folder / f"checkpoint-{10 * step}"
        if at.exists():
            continue
        at.mkdir(parents=True)
        save_file({n: w.contiguous() for n, w in state.items()}, at / "model.safetensors")
        (at / "config.json").write_text(json.dumps(config))
    return folder


def start(seed: int) -> State:
    """Heads whose products have four directions with gaps, in a basis of their own between."""
    draw = torch.Generator().manual_seed(seed)
    state = bert(seed, torch.float32)
    sizes = torch.tensor([16.0, 11.0, 7.5, 5.0, 1.0, 1.0, 1.0, 1.0]).sqrt()

    def pair() -> tuple[Tensor, Tensor]:
        turns = torch.linalg.qr(torch.randn(HEADS, SIZE, SIZE, generator=draw))[0]
        one, two = torch.randn(2, HEADS, SIZE, WIDTH, generator=draw) * sizes[:, None]
        return (turns @ one).reshape(WIDTH, WIDTH), (turns @ two).reshape(WIDTH, WIDTH)

    for layer in range(2):
        state[SELF.format(layer, "value")], out = pair()
        state[OUT.format(layer)] = out.mT
        state[SELF.format(layer, "query")], state[SELF.format(layer, "key")] = pair()
    return state


def shaken(state: State, draw: torch.Generator, *sizes: float) -> State:
    """Independent entries are added to every map, of several sizes in turn."""
    after = dict(state)
    for place, name in enumerate(name for name, w in state.items() if w.ndim == 2):
        size = sizes[place % len(sizes)]
        after[name] = state[name] + size * torch.randn(state[name].shape, generator=draw)
    return after


def moved_basis(state: State, size: float) -> State:
    """Another basis, not orthogonal, between the values and the output map of every head."""
    draw = torch.Generator().manual_seed(5)
    state = {name: w.clone() for name, w in state.items()}
    for layer in range(2):
        change = size * torch.randn(HEADS, SIZE, SIZE, generator=draw, dtype=torch.float64)
        basis = torch.block_diag(*torch.linalg.matrix_exp(change))
        value, out = SELF.format(layer, "value"), OUT.format(layer)
        bias = value.replace("weight", "bias")
        for name in (value, bias):
            state[name] = (basis @ state[name].double()).to(state[name])
        state[out] = (state[out].double() @ torch.linalg.inv(basis)).to(state[out])
    return state


def test_a_basis_between_two_maps_turns_them_and_not_their_product(tmp_path: Path) -> None:
    first = start(0)
    report = flagscope.track(written([first, moved_basis(first, 0.03)], tmp_path))
    frame = report.motion[report.motion["number"] == 10]
    maps = frame[(frame["part"] == "map") & (frame["status"] == "ok")]
    assert set(maps["role"]) == {"v", "o"}
    assert set(maps["label"]) == {"gauge"}
    assert (maps["turn_mean_square_sine"] > 1e-6).any()
    ov = frame[(frame["part"] == "product") & (frame["role"] == "ov")]
    assert len(ov) == 2 * HEADS * 2
    assert set(ov["status"]) == {"moved less than rounding can tell"}
    assert (ov["change"] < 1e-4 * ov["change_random"]).all()
    assert ov["turn_p_adjusted"].isna().all()
    assert set(ov["label"]) == {"functional"}
    qk = frame[frame["role"] == "qk"]
    assert set(qk["status"]) == {"identical"}


def with_a_turn(folder: Path, angle: float = 0.1) -> Path:
    """Two steps apart by random entries, and by a turn of what one head writes."""
    first, draw = start(1), torch.Generator().manual_seed(2)
    second = shaken(first, draw, 0.003)
    head = slice(2 * SIZE, 3 * SIZE)
    out, value = first[OUT.format(1)].double(), first[SELF.format(1, "value")].double()
    u = torch.linalg.svd(out[:, head] @ value[head])[0]
    rotation = torch.eye(WIDTH, dtype=torch.float64)
    plane = u[:, [0, 20]]
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    rotation = rotation + plane @ (turn.double() - torch.eye(2)) @ plane.mT
    second[OUT.format(1)][:, head] = (rotation @ second[OUT.format(1)][:, head].double()).float()
    # A change of the basis between the maps, of which the products know nothing.
    return written([first, moved_basis(second, 1e-4)], folder)


def test_a_turn_of_what_one_head_writes_is_found_and_is_functional(tmp_path: Path) -> None:
    report = flagscope.track(with_a_turn(tmp_path / "run", 0.1))
    frame = report.motion[report.motion["part"] == "product"]
    found = frame[frame["turn_p_adjusted"] < 0.05]
    assert found[["step", "map", "side", "label"]].values.tolist() == [
        ["checkpoint-10", "layer.1.head.2.ov", "write", "functional"]
    ]
    assert found["turn_block_ratio"].iloc[0] > 3
    whole = frame[(frame["map"] == "layer.1.head.2.ov") & (frame["number"] == 10)]
    assert whole["turn_largest_angle"].max() == pytest.approx(0.1, rel=0.3)
    page = report.to_html()
    assert "Products of maps" in page
    table = page[page.index('data-csv="products"') :]
    assert "layer.1.head.2.ov" in table[: table.index("</table>")]


def test_random_updates_of_both_maps_have_uniform_p_values(tmp_path: Path) -> None:
    more, ratios, changes, claims, possible = [], [], [], 0, 0
    for seed in range(12):
        draw, first = torch.Generator().manual_seed(900 + seed), start(seed)
        # Of unequal sizes: values and queries move less.
        steps = [first, shaken(first, draw, 0.02, 0.008)]
        report = flagscope.track(written(steps, tmp_path / str(seed)), kinds=("ov",))
        rows = report.motion[(report.motion["part"] == "product") & (report.motion["number"] == 10)]
        changes += (rows["change"] / rows["change_random"]).tolist()
        possible += len(rows)
        rows = rows[rows["turn_status"] == "ok"]
        more += (10 ** rows["turn_log10_p_more"]).tolist()
        ratios += rows["turn_ratio"].tolist()
        claims += bool((rows["turn_p_adjusted"] < 0.05).any())
    assert possible == 12 * 2 * HEADS * 2
    assert len(more) > 0.9 * possible
    assert abs(np.mean(ratios) - 1) < 4 * np.std(ratios) / math.sqrt(len(ratios))
    assert abs(np.mean(changes) - 1) < 4 * np.std(changes) / math.sqrt(len(changes) / 2)
    # 5 %, and four standard errors of pairs of sides that are not independent.
    assert np.mean(np.array(more) < 0.05) < 0.05 + 4 * math.sqrt(0.05 / (len(more) / 2))
    assert claims <= 3  # of 12 at 5 %: more has a probability of 0.2 %


def test_norms_and_distances_are_those_of_the_products(tmp_path: Path) -> None:
    draw, states = torch.Generator().manual_seed(3), [start(2)]
    for _ in range(2):
        states.append(shaken(states[-1], draw, 0.1))
    record = flagscope.track(written(states, tmp_path)).result
    way = {product.name: product for product in record.products}
    for head in range(HEADS):
        part = slice(head * SIZE, (head + 1) * SIZE)
        ov = [s[OUT.format(0)][:, part].double() @ s[SELF.format(0, "value")][part].double()
              for s in states]  # fmt: skip
        qk = [s[SELF.format(0, "key")][part].double().mT @ s[SELF.format(0, "query")][part].double()
              for s in states]  # fmt: skip
        for kind, products in (("ov", ov), ("qk", qk)):
            found = way[f"layer.0.head.{head}.{kind}"]
            assert (found.head, found.shared, found.between) == (head, SIZE, "gl")
            assert not found.at_one_position
            # 1,024 entries: all of them are held, and differences are exact.
            assert found.norm == pytest.approx([float(p.norm()) for p in products])
            assert found.change[1:] == pytest.approx(
                [float((products[i + 1] - products[i]).norm()) for i in range(2)]
            )
            assert found.displacement == pytest.approx(float((products[2] - products[0]).norm()))


def test_heads_that_share_keys_and_turn_them_have_products_at_one_position(tmp_path: Path) -> None:
    state = llama(dtype=torch.float32)
    after = {name: w.clone() for name, w in state.items()}
    angle = torch.tensor(0.3, dtype=torch.float64)
    c, s = angle.cos(), angle.sin()
    # What commutes with the rotary embedding: every plane (j, j + 4) is turned and stretched.
    eye = torch.eye(4, dtype=torch.float64)
    turn = 1.2 * torch.cat([torch.cat([c * eye, -s * eye], 1), torch.cat([s * eye, c * eye], 1)])
    for name, basis, heads in (
        ("q_proj", turn, 4), ("k_proj", torch.linalg.inv(turn).mT, 2)
    ):  # fmt: skip
        key = f"model.layers.0.self_attn.{name}.weight"
        after[key] = (torch.block_diag(*[basis] * heads) @ state[key].double()).float()
    record = flagscope.track(written([state, after], tmp_path, LLAMA)).result
    qk = [product for product in record.products if product.role == "qk"]
    assert len(qk) == 2 * 4
    assert all(product.at_one_position and product.between == "rotary" for product in qk)
    assert {p.status[1] for p in qk if p.layer == 0} == {"moved less than rounding can tell"}
    assert {p.status[1] for p in qk if p.layer == 1} == {"identical"}
    assert any("at one position" in note for note in record.notes)


def test_products_of_linear_neighbours_know_the_freedom_of_their_outer_sides(
    tmp_path: Path,
) -> None:
    run = list(linear(steps=3))
    folder = saved(run, tmp_path)
    record = flagscope.track(folder, config={"hidden_act": "linear"}).result
    one, two = record.products
    assert (one.name, one.role, one.shape, one.shared) == ("0-2", "sequential", (12, 24), 12)
    assert (two.name, two.shape) == ("2-4", (6, 12))
    # Of three maps each product of two has a free basis on the side of the third.
    assert {one.write.label, one.read.label, two.write.label, two.read.label} == {"gauge"}
    assert (one.write.freedom, one.read.freedom) == ("gl", "none")
    exact = [s["2.weight"].double() @ s["0.weight"].double() for _, s in run]
    assert one.change[1] == pytest.approx(float((exact[1] - exact[0]).norm()))
    # Without a word on what lies between, no product is that of the network.
    assert flagscope.track(folder).result.products == []


def test_a_product_that_is_not_finite_or_too_wide_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [start(0), start(0)]
    states[1][OUT.format(0)][3, 3] = math.inf
    record = flagscope.track(written(states, tmp_path / "a")).result
    layers = {p.layer: p.status for p in record.products if p.role == "ov"}
    assert layers[0] == ["the first step", "not finite, or beyond double precision"]
    assert layers[1] == ["the first step", "identical"]
    for place in ("product_states", "motions"):
        monkeypatch.setattr(f"flagscope.series.motion.{place}.WIDEST", 4)
    record = flagscope.track(written(states, tmp_path / "b")).result
    assert {tuple(p.status) for p in record.products} == {
        ("the shared space is above 1,024: the product was not looked at",) * 2
    }
    # A product without a state is no map with NaN.
    sound = flagscope.track(written([start(0), start(0)], tmp_path / "c")).result
    assert not any("finite" in note for note in sound.notes)


def test_a_further_step_reads_itself_alone_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, states = torch.Generator().manual_seed(4), [start(3)]
    for _ in range(3):
        states.append(shaken(states[-1], draw, 0.02))
    folder, store = written(states[:3], tmp_path / "run"), tmp_path / "store"
    flagscope.track(folder, store=store)
    written(states, folder)
    read: list[str] = []
    original = module.measured_products

    def counted(checkpoint: Any, *rest: Any) -> Any:
        read.append(str(checkpoint.source))
        return original(checkpoint, *rest)

    monkeypatch.setattr(module, "measured_products", counted)
    longer = flagscope.track(folder, store=store)
    assert len(read) == 1
    assert "checkpoint-30" in read[0]
    assert longer.result.products
    whole = flagscope.track(folder)
    assert len(read) == 5
    assert longer.to_json() == whole.to_json()
    assert flagscope.track(folder, store=store).to_json() == longer.to_json()
    assert len(read) == 5
