"""Many names in few patterns: exactly those names, in a list that no file makes long."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from flagscope.engine.plan.name_patterns import name_patterns


def expanded(pattern: str) -> set[str]:
    """The names that a pattern stands for, read as its documentation says."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices: list[list[str]] = []
    for place, part in enumerate(parts):
        if place % 2 == 0:
            choices.append([part])
            continue
        values: list[str] = []
        for word in part.split(","):
            run = re.fullmatch(r"(\d+)-(\d+)", word)
            values += map(str, range(int(run[1]), int(run[2]) + 1)) if run else [word]
        choices.append(values)
    return {"".join(choice) for choice in itertools.product(*choices)}


@pytest.mark.parametrize("seed", range(20))
def test_patterns_stand_for_the_names_and_no_others(seed: int) -> None:
    chosen = random.Random(seed)
    every = [
        f"layers.{i}.{block}.{leaf}.weight"
        for i in range(7)
        for block, leaves in (("att", ("q", "k", "v")), ("mlp", ("up", "down")))
        for leaf in leaves
    ]
    names = chosen.sample(every, k=chosen.randrange(1, len(every) + 1))
    patterns, unlisted = name_patterns(names, limit=100)
    assert unlisted == 0
    found = [expanded(pattern) for pattern in patterns]
    assert set().union(*found) == set(names)
    assert sum(map(len, found)) == len(names)
    assert len(patterns) < len(names) or len(names) < 4


def test_a_whole_stack_is_one_pattern() -> None:
    names = [f"layers.{i}.att.{w}.weight" for i in range(6) for w in ("w_q", "w_k", "w_v", "w_o")]
    assert name_patterns(names, limit=5) == (["layers.{0-5}.att.{w_k,w_o,w_q,w_v}.weight"], 0)


def test_what_has_no_room_is_counted() -> None:
    names = [f"{'x.' * i}end" for i in range(9)] + [f"{'y.' * 9}{i}" for i in range(30)]
    patterns, unlisted = name_patterns(names, limit=4)
    assert len(patterns) == 4
    assert unlisted == len(names) - 4


def test_numbers_that_are_no_layers_are_words() -> None:
    """Neither a leading zero nor a number of a thousand digits is counted with."""
    names = ["a.1", "a.01", f"a.{'9' * 5000}", "a.٣"]
    patterns, unlisted = name_patterns(names, limit=5)
    assert unlisted == 0
    assert patterns[0] == "a.1"
    assert all(len(pattern) <= 160 for pattern in patterns)


def test_many_words_are_not_all_written() -> None:
    (pattern,), unlisted = name_patterns([f"w{i}x.weight" for i in range(40)], limit=2)
    assert pattern.endswith("… 34 more}.weight")
    assert unlisted == 0
