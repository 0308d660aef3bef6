"""A family file of one's own: drafted or written, it is read as those that ship, and proven so."""

from pathlib import Path

import pytest
import torch

from arch.contract import assert_proven, randomise
from arch.decoders import OwnNames, tokens
from flagscope.arch import build_graph, family_draft
from flagscope.errors import ArchitectureError

# The ten lines of the documentation.
OWN = """
name = "own"
title = "My decoder"
sizes = { h = "heads" }
[[stacks]]
name = "trunk"
path = "trunk.{layer}."
attention = [{ q = { module = "mix.ask", layout = "(h k) d" }, k = { module = "mix.offer", layout = "(h k) d" }, v = { module = "mix.carry", layout = "(h k) d" }, o = { module = "mix.merge", layout = "d (h k)" }, norm = { module = "before_mix", kind = "layernorm" } }]
mlp = [{ up = { module = "think.grow", layout = "f d" }, down = { module = "think.shrink", layout = "d f" }, activation = { default = "relu" }, norm = { module = "before_think", kind = "layernorm" } }]
"""  # noqa: E501


def shapes_of(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_a_family_file_of_ones_own_is_proven_by_the_contract(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    module = randomise(OwnNames(), seed=3)
    graph = build_graph(shapes_of(module), {"heads": 4}, family=str(file))
    assert graph.family == "own"
    assert {pair.kind for pair in graph.pairs} == {"qk", "ov", "mlp", "residual"}
    assert len(graph.links) > 0

    def run(changed):
        with torch.no_grad():
            return torch.func.functional_call(module, changed, tokens())

    done = assert_proven(graph, dict(module.state_dict()), run, tolerance=1e-11)
    assert {"qk linear gl", "ov linear gl", "mlp relu scaling"} <= done


def test_without_it_nothing_is_claimed_of_such_names():
    graph = build_graph(shapes_of(OwnNames()), {"heads": 4})
    assert not graph.heads
    assert all(pair.freedom == "none" for pair in graph.pairs)


def test_a_draft_reads_as_the_reading_it_was_made_of(tmp_path):
    module = OwnNames()
    names = {"ask": "q", "offer": "k", "carry": "v", "merge": "out"}
    shapes = {}
    for name, shape in shapes_of(module).items():
        for own, usual in names.items():
            name = name.replace(f"mix.{own}", f"mix.{usual}")
        shapes[name] = shape
    found = build_graph(shapes, {"heads": 4})
    file = tmp_path / "draft.toml"
    file.write_text(family_draft(found))
    again = build_graph(shapes, {"heads": 4}, family=str(file))
    within = [pair for pair in again.pairs if pair.kind != "residual"]
    assert [(p.name, p.d, p.write, p.read) for p in found.pairs if p.kind != "residual"] == [
        (p.name, p.d, p.write, p.read) for p in within
    ]
    assert {p.kind for p in within} == {"qk", "ov", "mlp"}


def test_a_draft_of_a_sequence_and_of_a_known_family(tmp_path):
    shapes = {"net.0.weight": (8, 3, 3, 3), "net.1.weight": (8,), "net.1.running_mean": (8,),
              "net.1.running_var": (8,), "net.3.weight": (4, 8, 3, 3)}  # fmt: skip
    file = tmp_path / "draft.toml"
    file.write_text(family_draft(build_graph(shapes)))
    (pair,) = build_graph(shapes, family=str(file)).pairs
    assert (pair.name, pair.kind, pair.write_norm.name) == ("net.0-net.3", "conv", "net.1")
    known = {f"h.0.{n}.weight": s for n, s in (("attn.c_attn", (8, 24)), ("attn.c_proj", (8, 8)),
             ("mlp.c_fc", (8, 32)), ("mlp.c_proj", (32, 8)))}  # fmt: skip
    assert 'name = "gpt2"' in family_draft(build_graph(known, {"model_type": "gpt2"}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 1", r"own\.toml\.name: expected a string"),
        ("name = [", "own.toml"),
        ("name = 'a'\ntitle = 'b'\nstocks = []", "unknown key 'stocks'"),
    ],
)
def test_a_mistake_in_the_file_names_its_key(tmp_path, text, message):
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(ArchitectureError, match=message):
        build_graph({"a.weight": (2, 2)}, family=str(file))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ArchitectureError, match="cannot be read"):
        build_graph({"a.weight": (2, 2)}, family=str(tmp_path / "none.toml"))


def test_a_family_that_names_suggest_can_be_declined():
    shapes = {f"h.{i}.{n}.weight": s for i in range(2) for n, s in (
        ("attn.c_attn", (8, 24)), ("attn.c_proj", (8, 8)), ("mlp.c_fc", (8, 32)),
        ("mlp.c_proj", (32, 8)))}  # fmt: skip
    assert build_graph(shapes, {"n_head": 2}).family == "gpt2"
    declined = build_graph(shapes, {"n_head": 2}, family="none")
    assert declined.family == "unknown"
    assert {pair.freedom for pair in declined.pairs} == {"none"}


def test_the_documentation_shows_this_file():
    page = Path(__file__).parents[2] / "docs" / "mapping.md"
    shown = page.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    assert shown.strip() == OWN.strip()
