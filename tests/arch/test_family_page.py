"""The family of the page on adding one: its file and its case are all that it takes."""

import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")
from arch import cases
from arch.record import live_proof, merged
from flagscope.arch import families
from flagscope.arch.rules import load_families, parse_toml, sources
from flagscope.errors import ArchitectureError

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "family.md"


def shown(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return text


@pytest.fixture
def added(monkeypatch):
    """The page's file among those that ship, and its case among the others."""
    own = parse_toml(shown("toml"), "biogpt.toml")
    shipped = dict(sorted({**sources._shipped(), "biogpt": own}.items()))
    monkeypatch.setattr(sources, "_shipped", lambda: shipped)
    case = eval("{" + shown("python") + "}", vars(cases))
    monkeypatch.setitem(cases.CASES, "biogpt", case["biogpt"])
    load_families.cache_clear()
    yield shipped
    load_families.cache_clear()


def test_the_family_of_the_page_is_proven(added, tmp_path):
    proof = live_proof("biogpt")
    assert proof["family"] == "biogpt"
    assert proof["model_type"] == "biogpt"
    changes = {"qk linear gl", "qk linear heads", "ov linear gl", "ov linear heads"}
    assert set(proof["changes"]) == {*changes, "mlp gelu permutation"}
    saved = cases.prove_saved("biogpt", tmp_path)
    (family,) = (family for family in families() if family.name == "biogpt")
    entry = merged({"biogpt": proof}, {"biogpt": saved}, {})["families"]["biogpt"]
    assert set(entry["pairs"]) == set(family.pairs)
    assert (entry["models"], entry["saved"]) == (["BioGptForCausalLM"], "same")


def test_a_wrong_slice_does_not_pass(added):
    (attention,) = added["biogpt"]["stacks"][0]["attention"]
    attention["q"]["module"], attention["k"]["module"] = "self_attn.q_proj", "self_attn.v_proj"
    with pytest.raises((AssertionError, ArchitectureError)):
        live_proof("biogpt")


def test_its_names_do_not_take_other_models(added):
    """It is `unnamed`: OPT without a config stays OPT."""
    model, _ = cases.build("opt")
    graph = cases.graph_of(dict(model.state_dict()), {})
    assert graph.family == "opt"
