"""A family file that does not fit its model is an error that names the file and the key."""

import tomllib

import pytest

from arch.decoders import OwnNames
from arch.test_own_family import OWN, shapes_of
from flagscope.arch import build_graph, family_draft
from flagscope.errors import ArchitectureError

SHAPES = shapes_of(OwnNames())
FIRST = r"own\.toml\.stacks\[0\]\."


def refused(tmp_path, text, shapes=SHAPES):
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(ArchitectureError) as error:
        build_graph(shapes, {"heads": 4}, family=str(file))
    return error


MISTAKES = [
    ("mix.offer", "mix.ofer", r"attention\[0\]\.k\.module: no tensor is named", "mix.offer"),
    ("think.grow", "think.gro", r"mlp\[0\]\.up\.module: no tensor is named", "think.grow"),
    ('"before_mix"', '"befor_mix"', r"attention\[0\]\.norm\.module: no tensor", "before_mix"),
    ('"trunk.{layer}."', '"trunc.{layer}."', r"path: no tensor's name begins", "trunk.{layer}."),
    ('"trunk.{layer}."', '"trunk."', r"path: 'trunk\.' has no number", "trunk.{layer}."),
    ("k = { module", "k = { modul", r"attention\[0\]\.k: unknown key 'modul'", "'module'"),
    ("activation =", "activaton =", r"mlp\[0\]: unknown key 'activaton'", "'activation'"),
    (
        "norm = {",
        'query_norm = "mix.qn", norm = {',
        r"attention\[0\]\.query_norm: no tensor",
        "mix",
    ),
    ("path =", "pth =", r"unknown key 'pth'", "'path'"),
    ('"relu"', '"foo"', r"mlp\[0\]\.activation\.default: no activation is .* 'foo'", "relu"),
    ('"relu"', '"gellu"', r"mlp\[0\]\.activation\.default: no activation is known", "'gelu'?"),
    ('"(h k) d" }, k', '"(h k d" }, k', r"attention\[0\]\.q\.layout: layout '\(h k d'", "as in"),
    ('"f d"', '"f d y x"', r"mlp\[0\]\.up\.layout: tensor 'trunk\.0\.think", "config"),
    ('"d f"', '"f d"', r"mlp\[0\]\.", ""),
]


@pytest.mark.parametrize(("before", "after", "message", "hint"), MISTAKES)
def test_a_mistake_names_its_key_and_what_may_be_meant(tmp_path, before, after, message, hint):
    error = refused(tmp_path, OWN.replace(before, after, 1))
    error.match(r"own\.toml\.stacks\[0\](?:\.|: )" + message)
    assert hint in (error.value.hint or "")


def test_modules_of_every_layer_are_named_in_sequences_too(tmp_path):
    text = """
name = "own"
title = "Own"
[[sequences]]
maps = [{ module = "a", layout = "o i" }, { module = "bb", layout = "o i" }]
"""
    shapes = {"a.weight": (8, 4), "b.weight": (2, 8)}
    error = refused(tmp_path, text, shapes)
    error.match(r"own\.toml\.sequences\[0\]\.maps\[1\]\.module: no tensor is named 'bb.weight'")
    error = refused(tmp_path, text.replace("bb", "b").replace("o i", "o i x"), shapes)
    error.match(r"own\.toml\.sequences\[0\]\.maps\[0\]")


@pytest.mark.parametrize(("down", "whole"), [("none", False), ("mix.merge", True)])
def test_optional_blocks_may_be_missing_as_a_whole_alone(tmp_path, down, whole):
    block = ('{ optional = true, up = { module = "no", layout = "f d" }, '
             f'down = {{ module = "{down}", layout = "d f" }} }}')  # fmt: skip
    text = OWN.replace("mlp = [", f"mlp = [{block}, ")
    if whole:
        refused(tmp_path, text).match(FIRST + r"mlp\[0\]\.up\.module: no tensor is named")
    else:
        file = tmp_path / "own.toml"
        file.write_text(text)
        assert len(build_graph(SHAPES, {"heads": 4}, family=str(file)).heads) == 8


def test_a_draft_of_unknown_names_is_a_form_to_fill_in(tmp_path):
    found = build_graph(SHAPES, {"heads": 4})
    text = family_draft(found)
    tomllib.loads(text)
    assert "#   mix.offer.weight  (16, 16) in 2 layers" in text
    assert "Names of\n# one's own" in text
    error = refused(tmp_path, text)
    error.match(FIRST + r"attention\[0\]\.q\.module: still to be filled in")
    names = {"q": "mix.ask", "k": "mix.offer", "v": "mix.carry", "o": "mix.merge",
             "up": "think.grow", "down": "think.shrink"}  # fmt: skip
    for role, name in names.items():
        text = text.replace(f'\n{role} = {{ module = "?"', f'\n{role} = {{ module = "{name}"')
    file = tmp_path / "own.toml"
    file.write_text(text)
    graph = build_graph(SHAPES, {"num_heads": 4}, family=str(file))
    assert {pair.kind for pair in graph.pairs} == {"qk", "ov", "mlp"}


def test_a_draft_lists_what_was_not_read_next_to_what_was():
    shapes = {**SHAPES, **{f"trunk.{i}.att.{n}.weight": (16, 16) for i in range(2)
                           for n in ("q", "k", "v", "out")}}  # fmt: skip
    text = family_draft(build_graph(shapes, {"heads": 4}))
    tomllib.loads(text)
    assert "att.q" in text.partition("# Not read")[0]
    assert "trunk.{layer}.mix.ask.weight  (16, 16) in 2 layers" in text.partition("# Not read")[2]
