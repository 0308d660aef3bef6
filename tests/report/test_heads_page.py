"""All heads against each other: the answer in words, and its page."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import flagscope
from flagscope.records import ComparedHead
from flagscope.report.heads import render_heads, render_heads_summary
from flagscope.report.heads.maps import MOST_HEADS, space_map
from flagscope.schema import HEADS_SCHEMA_FILE, heads_schema
from report.dumped import driven, needs_chromium, overhang
from report.test_page import _parsed

D, HEADS, LAYERS = 32, 4, 3
GPT2 = {"model_type": "gpt2", "n_embd": D, "n_head": HEADS, "n_layer": LAYERS}
BERT = {
    "model_type": "bert", "hidden_size": D, "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS, "intermediate_size": 16, "vocab_size": 8,
}  # fmt: skip


def gpt2(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D)}
    state = {
        f"h.{layer}.{name}.weight": torch.randn(shape, generator=generator)
        for layer in range(LAYERS)
        for name, shape in shapes.items()
    }
    return state | {f"h.{layer}.ln_1.weight": torch.ones(D) for layer in range(LAYERS)}


def bert(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    names = ("self.query", "self.key", "self.value", "output.dense")
    state = {
        f"encoder.layer.{layer}.attention.{name}.weight": torch.randn(D, D, generator=generator)
        for layer in range(LAYERS)
        for name in names
    }
    gains = {
        f"encoder.layer.{layer}.{place}.LayerNorm.{part}": torch.ones(D)
        for layer in range(LAYERS)
        for place in ("attention.output", "output")
        for part in ("weight", "bias")
    }
    return state | gains


def planted() -> dict[str, Tensor]:
    """A head of layer 0 that reads and writes as one of layer 2 does."""
    state, rank = gpt2(), D // HEADS
    turn = torch.randn(rank, rank, generator=torch.Generator().manual_seed(9))
    read = [state[f"h.{layer}.attn.c_attn.weight"] for layer in (0, 2)]
    write = [state[f"h.{layer}.attn.c_proj.weight"] for layer in (0, 2)]
    read[1][:, rank : 2 * rank] = read[0][:, 2 * rank : 3 * rank] @ turn
    write[1][rank : 2 * rank] = turn @ write[0][2 * rank : 3 * rank]
    return state


@pytest.fixture(scope="module")
def copies() -> flagscope.HeadOverlaps:
    return flagscope.head_overlaps(planted(), config=GPT2)


def test_near_copies_come_first(copies: flagscope.HeadOverlaps) -> None:
    answer = copies.answer
    assert answer.headline == (
        "2 pairs of near-copies among 12 heads: 1 in query space and 1 in output space."
    )
    (line,) = answer.lines
    assert line.startswith("L0H2 and L2H1, query space and output space: mean squared cosine 1.00")
    assert "at least half of the way from chance to 1" in answer.definition
    assert "cheap to prune" in answer.not_meaning
    assert "pruning" in answer.not_meaning
    assert answer.caveats == ()
    assert answer.not_compared == (
        "What heads do on data; queries of one head against keys, values or outputs of another.",
    )


def test_near_copies_are_records_of_a_stable_shape(copies: flagscope.HeadOverlaps) -> None:
    (pair,) = copies["q"].near_copies
    assert (pair.first, pair.second) == ("L0H2.q", "L2H1.q")
    assert copies["q"].near_copies_total == 1
    assert pair.chance == pytest.approx(8 / 31)
    assert copies.near_copies["first"].tolist() == ["L0H2.q", "L0H2.o"]
    read = copies.to_dict()["spaces"][0]
    assert set(read["near_copies"][0]) == {
        "first", "second", "overlap_ratio", "mean_squared_cosine", "chance", "z", "p", "log10_p",
        "p_adjusted", "common_basis",
    }  # fmt: skip
    assert read["closest"] == read["near_copies"][0]
    assert read["near_copies"][0]["p_adjusted"] < 1e-6


def test_the_json_follows_the_published_schema(copies: flagscope.HeadOverlaps) -> None:
    published = json.loads(HEADS_SCHEMA_FILE.read_text(encoding="utf-8"))
    assert published == heads_schema(), "run `python -m flagscope.schema --write`"
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(heads_schema())
    for found in (copies, flagscope.head_overlaps(bert(), config=BERT, spaces="k")):
        check.validate(json.loads(found.to_json()))
    with pytest.raises(jsonschema.ValidationError):
        check.validate({**copies.to_dict(), "spaces": [{}]})


def test_a_model_without_near_copies_says_which_heads_are_closest() -> None:
    found = flagscope.head_overlaps(gpt2(), config=GPT2)
    answer = found.answer
    assert answer.headline == (
        "No two of 12 heads are near-copies in any of 4 spaces (query, key, value and output)."
    )
    space = max(found.spaces, key=lambda one: way(one.closest))
    first = space.closest.first.partition(".")[0]
    assert answer.lines[0].startswith(f"The closest are {first} and ")
    assert answer.not_meaning == ""
    assert found.near_copies.empty
    assert list(found.near_copies.columns) == list(found.pairs.columns)


def way(pair) -> float:
    return (pair.mean_squared_cosine - pair.chance) / (1 - pair.chance)


@pytest.mark.parametrize("rank", [2, 5, 8])
def test_the_closest_pair_and_the_near_ones_are_those_of_the_table(rank: int) -> None:
    state = planted()
    # Heads of several ranks: the fewer directions, the more of them may lie in another head.
    for layer in range(LAYERS):
        state[f"h.{layer}.attn.c_attn.weight"][:, rank : D // HEADS] = 0
    space = flagscope.head_overlaps(state, config=GPT2)["q"]
    ranks = [head.rank for head in space.measured]
    ways = {
        (space.measured[i].label, space.measured[j].label): (
            (space.squared[i, j] / min(ranks[i], ranks[j]) - max(ranks[i], ranks[j]) / space.d)
            / (1 - max(ranks[i], ranks[j]) / space.d)
        )
        for i in range(len(ranks))
        for j in range(i + 1, len(ranks))
    }
    assert (space.closest.first, space.closest.second) == max(ways, key=ways.__getitem__)
    near = {pair for pair, value in ways.items() if value >= 0.5}
    assert {(pair.first, pair.second) for pair in space.near_copies} == near


def test_nearness_by_chance_is_no_near_copy() -> None:
    # Single directions in the plane: a third of all pairs are within 45 degrees of each other.
    config = {**GPT2, "n_embd": 2, "n_head": 2, "n_layer": 4}
    generator = torch.Generator().manual_seed(1)
    state = {
        f"h.{layer}.attn.{name}.weight": torch.randn(shape, generator=generator)
        for layer in range(4)
        for name, shape in (("c_attn", (2, 6)), ("c_proj", (2, 2)))
    }
    space = flagscope.head_overlaps(state, config=config)["o"]
    shares = [pair for pair in space.pairs if way(pair) >= 0.5]
    assert len(shares) > 3
    assert space.near_copies_total < len(shares)


def test_hundreds_of_near_copies_are_counted_and_some_listed() -> None:
    state = gpt2()
    config = {**GPT2, "n_layer": 8}
    state |= {
        f"h.{layer}.{name}.weight": state[f"h.0.{name}.weight"]
        for layer in range(1, 8)
        for name in ("attn.c_attn", "attn.c_proj", "ln_1")
    }
    found = flagscope.head_overlaps(state, config=config, spaces="o")
    assert found["o"].near_copies_total == HEADS * 8 * 7 // 2
    assert len(found["o"].near_copies) == HEADS * 8 * 7 // 2
    assert found.answer.lines[0].startswith("A cluster of 8 heads, output space: L0H")
    assert found.answer.lines[-1] == "The tables and the JSON list more of them."


def test_post_norm_stacks_have_their_caveat() -> None:
    (caveat,) = flagscope.head_overlaps(bert(), config=BERT).answer.caveats
    assert caveat.startswith("Post-norm (encoder): a norm behind every sum changes the basis")
    assert flagscope.head_overlaps(gpt2(), config=GPT2).answer.caveats == ()


def test_pairs_across_layers_of_a_post_norm_stack_have_no_common_basis() -> None:
    state = bert()
    of = "encoder.layer.{}.attention.self.query.weight"
    state[of.format(2)][:8] = state[of.format(0)][8:16]  # L2H0 is L0H1
    found = flagscope.head_overlaps(state, config=BERT, top=200)
    listed = [pair for space in found.record().spaces for pair in space.pairs]
    for pair in listed:
        assert pair.common_basis == (pair.first[:2] == pair.second[:2])
    assert {pair.common_basis for pair in listed} == {False, True}
    (line,) = found.answer.lines
    assert line.startswith("L0H1 and L2H0, query space: ")
    assert line.endswith("; these layers have no common basis.")
    assert set(found.pairs["common_basis"]) == {False, True}
    assert ">not common</td>" in found.to_html()
    same = flagscope.head_overlaps(gpt2(), config=GPT2)
    assert all(same.pairs["common_basis"])
    assert "basis" not in "".join(same.answer.lines)
    bare = {name: tensor for name, tensor in bert().items() if "LayerNorm" not in name}
    unknown = flagscope.head_overlaps(
        {name.replace("encoder.layer", "blocks"): tensor for name, tensor in bare.items()},
        family="none", heads=HEADS,
    )  # fmt: skip
    across = [p for s in unknown.record().spaces for p in s.pairs if p.first[:2] != p.second[:2]]
    assert {pair.common_basis for pair in across} == {None}
    assert ">not known</td>" in unknown.to_html()


def test_key_value_heads_and_kinds_of_attention_are_named() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    llama = transformers.LlamaModel(
        transformers.LlamaConfig(
            hidden_size=64, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2,
            intermediate_size=48, vocab_size=32,
        )
    )  # fmt: skip
    keys = [layer.self_attn.k_proj.weight.data for layer in llama.layers]
    keys[2][:8] = keys[0][8:16]
    answer = flagscope.head_overlaps(llama).answer
    assert answer.headline == "1 pair of near-copies among 24 heads, in key space."
    assert answer.lines[0].startswith("key-value heads L0H1 and L2H0, key space:")
    both = transformers.GPT2Model(
        transformers.GPT2Config(n_layer=2, n_head=4, n_embd=32, add_cross_attention=True)
    )
    both.h[1].crossattention.c_proj.weight.data = both.h[0].crossattention.c_proj.weight.data
    answer = flagscope.head_overlaps(both).answer
    assert answer.headline == (
        "4 pairs of near-copies among 16 heads, in cross-attention output space."
    )
    assert answer.lines[0].startswith("L0H0 and L1H0, cross-attention output space:")
    assert answer.not_compared[-1].endswith("or of self- and cross-attention.")


def test_weights_as_stored_have_their_caveat() -> None:
    (caveat,) = flagscope.head_overlaps(gpt2(), config=GPT2, fold_norms="none").answer.caveats
    assert caveat.startswith("Gains of norms are not folded in")


def test_what_was_not_looked_at_is_named() -> None:
    state = gpt2()
    state["h.1.attn.c_attn.weight"][:, :8] = 0
    answer = flagscope.head_overlaps(state, config=GPT2, spaces=("q", "o")).answer
    assert answer.not_compared[0] == (
        "1 of 12 heads in query space cannot be measured: L1H0 (all zero)."
    )
    assert "The key and value spaces were not asked for." in answer.not_compared


def test_a_model_without_heads_is_a_sentence() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    found = flagscope.head_overlaps(net)
    assert found.answer.headline == (
        "No attention heads were found in this model, so there is nothing to compare."
    )
    page = found.to_html()
    assert "nothing to compare" in page
    assert "<table" not in page
    assert "nothing to compare" in found._repr_html_()
    zero = {name: torch.zeros_like(w) for name, w in gpt2().items() if "ln" not in name}
    nothing = flagscope.head_overlaps(zero, config=GPT2).answer
    assert nothing.headline == "No two heads could be compared: 12 of 12 heads cannot be measured."


# The page


def test_the_page_loads_nothing(copies: flagscope.HeadOverlaps) -> None:
    page = copies.to_html(title="Two of a kind")
    elements = _parsed(page)
    assert elements.requests == []
    assert len(set(elements.ids)) == len(elements.ids)
    assert ">Heads of Two of a kind</h1>" in page
    assert html.escape(copies.answer.headline) in page
    assert page.count("data-map=") >= 4


def test_names_are_text(copies: flagscope.HeadOverlaps) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    record = copies.record().model_copy(update={"source": hostile, "notes": [hostile]})
    tables = [space.ratios for space in copies.spaces]
    for page in (render_heads(record, tables, title=hostile), render_heads_summary(record)):
        assert "<img" not in page
    assert "&lt;img" in render_heads(record, tables)


def test_maps_are_drawn_by_head_and_of_many_by_layer() -> None:
    heads = [ComparedHead(label=f"L{i // 2}H{i % 2}.q", layer=i // 2, head=i % 2, rank=1,
                          status="ok") for i in range(6)]  # fmt: skip
    ratios = np.arange(36.0).reshape(6, 6) / 10
    spec = space_map(heads, ratios)
    heat = spec["data"][0]
    assert heat["y"] == ["L0H0", "L0H1", "L1H0", "L1H1", "L2H0", "L2H1"]
    assert heat["z"][1][3] == pytest.approx(0.9)
    assert heat["z"][2][2] is None
    assert len(spec["layout"]["shapes"]) == 4
    many = [ComparedHead(label=f"L{i // 41}H{i % 41}.q", layer=i // 41, head=i % 41, rank=1,
                         status="ok") for i in range(410)]  # fmt: skip
    assert len(many) > MOST_HEADS
    table = np.ones((410, 410))
    table[3, 50] = table[50, 3] = 7.0
    heat = space_map(many, table)["data"][0]
    assert len(heat["z"]) == 10
    assert (heat["z"][0][1], heat["customdata"][0][1]) == (7.0, "L0H3 and L1H9")


_DRIVE = """<script>
(async () => {
  const said = {};
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  while (!document.documentElement.dataset.ready) await wait(50);
  const map = document.querySelector("[data-map]");
  while (!map.on) await wait(50);
  map.emit("plotly_click", { points: [{ x: "L2H1", y: "L0H2", data: map.data[0] }] });
  await wait(300);
  said.hash = location.hash;
  said.title = byId("pair-title").textContent;
  said.rows = byId("pair-rows").rows.length;
  said.first = byId("pair-rows").rows[0].textContent;
  said.told = byId("said").textContent;
  location.hash = "#pair/3/L1H0-L1H1";
  await wait(300);
  said.followed = byId("pair-title").textContent;
  const before = URL.createObjectURL;
  let saved = null;
  URL.createObjectURL = (blob) => { saved = blob; return before.call(URL, blob); };
  document.querySelector("button.save-table").click();
  said.csv = (await saved.text()).split("\\r\\n").slice(0, 2);
  document.body.dataset.said = JSON.stringify(said);
})();
</script>"""


@needs_chromium
def test_a_cell_opens_its_heads(copies: flagscope.HeadOverlaps, tmp_path: Path) -> None:
    said = driven(copies.to_html(), _DRIVE, tmp_path)
    assert said["hash"] == "#pair/0/L0H2-L2H1"
    assert said["told"] == "L0H2 and L2H1."
    assert said["title"] == "L0H2 and L2H1"
    assert said["rows"] == 4
    assert said["first"] == "Query space3.881.000.258"
    assert said["followed"] == "L1H0 and L1H1"
    assert said["csv"][0].startswith("Space,Head,Head,Mean cos²,by chance")
    assert said["csv"][1].startswith("query space,L0H2.q,L2H1.q,1")


@needs_chromium
@pytest.mark.parametrize("width", [390, 1300])
def test_it_fits_the_window(copies: flagscope.HeadOverlaps, tmp_path: Path, width: int) -> None:
    assert overhang(copies.to_html(), tmp_path, width=width) == 0
