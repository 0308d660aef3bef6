"""Query heads and the key-value heads that they share count in two numberings, never mixed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import flagscope

WIDTH, SIZE = 64, 16


def grouped(kv: int, *, copies: tuple[int, int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A layer of four query heads; two query heads and the key heads of those numbers are copies.

    Two layers, so that links between heads are there too.
    """
    draw = torch.Generator().manual_seed(kv)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    state = {"model.norm.weight": torch.ones(WIDTH)}
    first, second = (slice(SIZE * i, SIZE * (i + 1)) for i in copies)
    for layer in range(2):
        at = f"model.layers.{layer}."
        maps = {"q": random(WIDTH, WIDTH), "k": random(SIZE * kv, WIDTH)}
        for one in maps.values():
            if copies[1] * SIZE < len(one):
                one[second] = one[first] + 0.05 * random(SIZE, WIDTH)
        maps |= {"v": random(SIZE * kv, WIDTH), "o": random(WIDTH, WIDTH)}
        state |= {f"{at}self_attn.{name}_proj.weight": one for name, one in maps.items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{at}{name}.weight"] = torch.ones(WIDTH)
        for name, shape in (("gate", (128, 64)), ("up", (128, 64)), ("down", (64, 128))):
            state[f"{at}mlp.{name}_proj.weight"] = random(*shape)
    return state, {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": kv,
                   "hidden_size": WIDTH}  # fmt: skip


@pytest.fixture(scope="module", params=[1, 2])
def texts(request: pytest.FixtureRequest) -> list[str]:
    state, config = grouped(request.param, copies=(0, 1))
    report = flagscope.scan(state, config=config, workers=1)
    return [finding.text for finding in report.findings if finding.topic in ("heads", "links")]


def test_every_sentence_says_which_heads_it_means(texts: list[str]) -> None:
    assert texts
    for text in texts:
        without = re.sub(r"(query|key-value|later|two|random) heads?('s)?", "", text, flags=re.I)
        without = re.sub(r"from head to head|between heads", "", without)
        assert not re.search(r"\bheads?\b", without, flags=re.I), text


def test_no_sentence_speaks_of_both_but_to_say_which_serve_which(texts: list[str]) -> None:
    for text in texts:
        spoken = re.sub(
            r"\((which serve|a key-value head that serves) query heads[^)]*\)", "", text
        )
        both = "query head" in spoken.lower() and "key-value head" in spoken.lower()
        assert not both, text


def test_copies_among_key_heads_are_said_of_the_query_heads_that_they_serve() -> None:
    state, config = grouped(2, copies=(0, 1))
    report = flagscope.scan(state, config=config, workers=1)
    near = [finding for finding in report.findings if finding.code == "near-copies"]
    (query,) = [f for f in near if f.text.startswith("2 pairs of query heads (layers 0–1) ")]
    (key,) = [f for f in near if f.text.startswith("2 pairs of key-value heads (layers 0–1) ")]
    assert "key space" not in query.text
    served = "key-value heads 0 and 1 (which serve query heads 0–1 and 2–3) (key), mean"
    assert all(served in item.text for item in key.items)
    assert len(key.items) == 2


def test_heads_of_one_numbering_are_just_heads() -> None:
    state, config = grouped(4, copies=(0, 1))
    report = flagscope.scan(state, config=config, workers=1)
    (near,) = [finding for finding in report.findings if finding.code == "near-copies"]
    assert near.text.startswith("2 pairs of heads (layers 0–1) are near-copies: ")
    assert all(": heads 0 and 1 (query and key), mean" in item.text for item in near.items)


def test_a_single_shared_head_lacks_no_number() -> None:
    state, config = grouped(1, copies=(0, 1))
    report = flagscope.scan(state, config=config, workers=1)
    assert any(group.count == 1 and group.status != "ok" for group in report.result.heads)
    warnings = {finding.code for finding in report.findings if finding.severity == "warning"}
    assert warnings <= {"missing-tensors"}  # the state has no embedding
