"""Family files: all that ship are valid, and mistakes in one are named with their place."""

import copy

import pytest

from flagscope.arch.activations import activation_freedom
from flagscope.arch.rules import load_families, parse_toml, read_family
from flagscope.errors import ArchitectureError

GOOD = {
    "name": "x",
    "title": "X",
    "sizes": {"h": ["heads"]},
    "stacks": [
        {
            "name": "encoder",
            "path": "layer.{layer}.",
            "attention": [
                {
                    "q": {"module": "q", "layout": "(h k) d"},
                    "k": {"module": "k", "layout": "(g k) d"},
                    "v": {"module": "v", "layout": "(h k) d"},
                    "o": {"module": "o", "layout": "d (h k)"},
                    "rotary": {"layout": "half"},
                    "norm": {"module": "n", "kind": "rmsnorm"},
                }
            ],
            "mlp": [
                {
                    "up": {"module": "u", "layout": "f d"},
                    "down": {"module": "w", "layout": "d f"},
                }
            ],
        }
    ],
}


def at(content, *path):
    for key in path:
        content = content[key]
    return content


def test_the_good_file_is_good():
    family = read_family(GOOD, "x.toml")
    maps = family.stacks[0].attention[0].maps
    assert [one.batch for one in maps] == ["h", "g", "h", "h"]
    assert family.stacks[0].mlp[0].activation.default == "unknown"


ATTENTION = ("stacks", 0, "attention", 0)
MISTAKES = [
    ((), {"titel": "X"}, r"x\.toml: unknown key 'titel'"),
    ((), {"title": 3}, r"x\.toml\.title: expected a string, got 3"),
    ((), {"stacks": {}}, r"x\.toml\.stacks: expected an array"),
    ((), {"stacks": []}, "neither stacks nor sequences nor a chain"),
    ((), {"sizes": {"h": 3}}, r"x\.toml\.sizes\.h: expected a string or an array"),
    ((), {"extends": "nobody"}, "'nobody' is not a family that stands by itself"),
    (("stacks", 0), {"path": "layer.{layer}"}, "must end with a dot"),
    (("stacks", 0), {"path": "layer.{layer}"}, "end with a dot"),
    (ATTENTION, {"kind": "other"}, r"attention\[0\]\.kind: expected one of self, cross"),
    (ATTENTION, {"optional": "yes"}, "expected true or false"),
    ((*ATTENTION, "q"), {"layout": "(h k d"}, "not a pattern of axes"),
    ((*ATTENTION, "q"), {"layout": "(h j) d"}, "lacks the axis 'k'"),
    ((*ATTENTION, "q"), {"select": {"three": "a"}}, "expected an integer, got 'a'"),
    ((*ATTENTION, "q"), {"select": {"three": 1}}, "lacks the axis 'three'"),
    ((*ATTENTION, "rotary"), {"layout": "quarter"}, "expected one of half, interleaved"),
    ((*ATTENTION, "rotary"), {"fraction": {"default": "all"}}, "expected a number"),
    ((*ATTENTION, "norm"), {"kind": "other"}, r"norm\.kind: expected one of layernorm"),
    ((*ATTENTION, "norm"), {"offset": True}, "expected a number, got True"),
]


@pytest.mark.parametrize(("path", "change", "message"), MISTAKES)
def test_mistakes_are_named(path, change, message):
    content = copy.deepcopy(GOOD)
    at(content, *path).update(change)
    with pytest.raises(ArchitectureError, match=message) as raised:
        read_family(content, "x.toml")
    assert raised.value.hint


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ((), "name"),
        (("stacks", 0), "path"),
        (ATTENTION, "o"),
        ((*ATTENTION, "q"), "module"),
        ((*ATTENTION, "q"), "layout"),
        (("stacks", 0, "mlp", 0), "down"),
    ],
)
def test_missing_keys_are_named(path, key):
    content = copy.deepcopy(GOOD)
    del at(content, *path)[key]
    with pytest.raises(ArchitectureError, match=f"key '{key}' is missing"):
        read_family(content, "x.toml")


def test_extends_takes_all_but_the_identity():
    child = {"name": "y", "title": "Y", "extends": "x"}
    family = read_family(child, "y.toml", {"x": {**GOOD, "model_types": ["x"]}})
    assert family.stacks == read_family(GOOD, "x.toml").stacks
    assert family.model_types == ()
    with pytest.raises(ArchitectureError, match="stands by itself"):
        read_family({**child, "extends": "y"}, "z.toml", {"y": child})


def test_broken_toml():
    with pytest.raises(ArchitectureError, match=r"y\.toml") as raised:
        parse_toml("name = ", "y.toml")
    assert "valid TOML" in raised.value.hint


def test_shipped_families_are_named_as_their_files():
    for name, family in load_families().items():
        assert family.name == name
        assert family.title


def test_a_mistyped_key_hint_lists_the_known_ones():
    content = copy.deepcopy(GOOD)
    at(content, *ATTENTION)["q_norm"] = "n"
    with pytest.raises(ArchitectureError, match="unknown key 'q_norm'") as raised:
        read_family(content, "x.toml")
    assert "query_norm" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "freedom"),
    [
        ("relu", "scaling"), ("ReLU", "scaling"), ("leaky_relu", "scaling"), ("linear", "gl"),
        ("relu2", "permutation"), ("silu", "permutation"), ("unknown", "none"),
    ],
)  # fmt: skip
def test_activation_freedom(name, freedom):
    assert activation_freedom(name) == freedom
