"""The mistakes that `make mistakes` plants are those it says, and it tells who catches them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))

import plant_mistakes  # noqa: E402
from kinds_of_mistakes import KINDS, mistakes_in  # noqa: E402

PLANTED = [
    ("comparison", "a < b", "a >= b"),
    ("comparison", "a is not None", "a is None"),
    ("comparison", "a not in b", "a in b"),
    ("boundary", "a <= b", "a < b"),
    ("arithmetic", "a * b", "a / b"),
    ("arithmetic", "(a) + (b)", "(a) - (b)"),
    ("swapped operands", "a - b", "b - a"),
    ("swapped operands", "a @ b.mT", "b.mT @ a"),
    ("logic", "a and b", "a or b"),
    ("dropped not", "f(not a)", "f((a))"),
    ("constant", "x = 3", "x = 4"),
    ("constant", "x = 0.5", "x = 1.0"),
    ("extreme", "max(a)", "min(a)"),
    ("extreme", "x.amax(-1)", "x.amin(-1)"),
    ("wrong side", "write.size - read.size", "read.size - read.size"),
    ("wrong side", "rank_write, rank_read", "rank_read, rank_read"),
    ("swapped arguments", "f(a, b.c, 1)", "f(b.c, a, 1)"),
    ("axis", "x.sum(-1)", "x.sum(-2)"),
    ("axis", "f(x, dim=0)", "f(x, dim=1)"),
    ("dropped keyword", "f(a, b=1)", "f(a)"),
    ("dropped keyword", "f(b=1, c=2)", "f(c=2)"),
    ("dropped branch", "if a:\n    raise f(b)", "if False:\n    raise f(b)"),
    ("swapped branches", "x = a if b else c", "x = c if b else a"),
    ("dropped statement", "f(a)", "pass"),
]


@pytest.mark.parametrize(("kind", "before", "after"), PLANTED)
def test_each_kind_is_planted_as_said(kind: str, before: str, after: str) -> None:
    planted = [m.planted_in(before) for m in mistakes_in(before) if m.kind == kind]
    assert after in planted


def test_every_kind_has_an_example() -> None:
    assert {kind for kind, *_ in PLANTED} == set(KINDS)


@pytest.mark.parametrize(
    "source",
    [
        '"""Text with 3 < 4."""',
        "x: f(3)",
        "def f(a: g[3]) -> h[3]: ...",
        "@f(3)\nclass A: ...",
        'raise f(3, a < b, "text")',
        "if TYPE_CHECKING:\n    x = 3",
        'f"{3:g}"',
        'a + "text"',
        "max(a, b)[c]",
    ],
)
def test_what_is_said_and_not_done_is_left_alone(source: str) -> None:
    assert [m for m in mistakes_in(source) if m.kind != "extreme"] == []


def test_a_mistake_knows_its_line_behind_letters_of_several_bytes() -> None:
    source = "σ = 'δ'\nε = σ if a else 2"
    (mistake,) = [m for m in mistakes_in(source) if m.kind == "constant"]
    assert mistake.line == 2
    assert mistake.planted_in(source).endswith("else 3")


def test_a_seed_draws_the_same_mistakes_of_every_room() -> None:
    first, again, other = (plant_mistakes.drawn(14, seed) for seed in (3, 3, 4))
    assert first == again != other
    rooms = Counter(case.path.relative_to(plant_mistakes.PACKAGE).parts[0] for case in first)
    assert rooms == dict.fromkeys(plant_mistakes.ROOMS, 2)
    assert all(case.changes_code() for case in first)


def test_more_mistakes_than_there_are_is_said() -> None:
    with pytest.raises(SystemExit, match="at most"):
        plant_mistakes.drawn(10**6, seed=0)


def test_the_nearest_tests_come_first() -> None:
    ranks = plant_mistakes.nearest_tests(Path("src/flagscope/geometry/ranks.py"), 3)
    assert ranks[:2] == ["src/flagscope/geometry/ranks.py", "tests/geometry/test_ranks.py"]
    assert len(ranks) == 4
    api = plant_mistakes.nearest_tests(Path("src/flagscope/api/head_overlaps.py"), 6)
    assert api[1] == "tests/api/test_head_overlaps.py"
    assert "tests/api/test_arguments.py" in api
    # Followed from the face of a package to the module that has the name.
    tails = plant_mistakes.nearest_tests(Path("src/flagscope/null/tails.py"), 3)
    assert "tests/null/test_tails.py" in tails


def test_every_named_equivalent_stands_in_the_code_with_its_reason() -> None:
    for (name, now, then), reason in plant_mistakes.known_equivalents().items():
        texts = [file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob(name)]
        assert any(all(line in text for line in now.splitlines()) for text in texts), now
        assert now != then
        assert len(reason) > 10


@pytest.fixture
def small_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    files = {
        "src/flagscope/__init__.py": "",
        "src/flagscope/geometry/__init__.py": "",
        "src/flagscope/geometry/half.py": "def half(n):\n    while n > 9:\n        n -= 10\n"
        "    return n < 5\n",
        "tests/geometry/test_half.py": "from flagscope.geometry.half import half\n\n\n"
        "def test_half():\n    assert half(2) and not half(7) and half(12)\n",
        "scripts/equivalent_mistakes.toml": "",
    }
    for name in (*files, "docs/x.md", "benchmarks/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(files.get(name, ""))
    monkeypatch.setattr(plant_mistakes, "ROOT", tmp_path)
    plant_mistakes._imports.cache_clear()
    yield tmp_path
    plant_mistakes._imports.cache_clear()


def all_planted(tree: Path) -> list[plant_mistakes.Planted]:
    path = Path("src/flagscope/geometry/half.py")
    source = (tree / path).read_text()
    return [
        plant_mistakes.Planted(number, path, source, mistake)
        for number, mistake in enumerate(mistakes_in(source))
    ]


def ends(tree: Path, lines: Collection[str], *, limit: float) -> dict[str, str]:
    """What becomes of the mistakes that make these lines."""
    planted = [case for case in all_planted(tree) if case.changed_lines()[1] in lines]
    tests = {planted[0].path: plant_mistakes.nearest_tests(planted[0].path, 1)}
    outcomes = plant_mistakes.outcomes(planted, tests, jobs=2, limit=limit)
    return {case.changed_lines()[1]: outcome for case, outcome, *_ in outcomes}


def test_a_mistake_is_caught_or_survives_or_is_known_to_change_nothing(small_tree: Path) -> None:
    wanted = {
        "return n >= 5": "caught",
        "return n <= 5": "survived",
        "return n < 6": "equivalent",
    }
    (small_tree / "scripts/equivalent_mistakes.toml").write_text(
        '[[mistake]]\nfile = "half.py"\nnow = "return n < 5"\nthen = "return n < 6"\nwhy = "so"\n'
    )
    assert ends(small_tree, wanted, limit=600) == wanted
    assert "n < 5" in (small_tree / "src/flagscope/geometry/half.py").read_text()


def test_the_module_that_tests_import_is_that_whose_examples_run(small_tree: Path) -> None:
    (small_tree / "pytest.ini").write_text(
        "[pytest]\naddopts = --doctest-modules --import-mode=importlib\n"
    )
    (small_tree / "src/flagscope/geometry/__init__.py").write_text(
        "from flagscope.geometry.half import half as of\n"
    )
    with (small_tree / "tests/geometry/test_half.py").open("a") as file:
        file.write("    import flagscope.geometry as face\n    assert face.of is half\n")
    assert ends(small_tree, ["return n <= 5"], limit=600) == {"return n <= 5": "survived"}


def test_a_function_whose_name_begins_like_a_test_is_none(small_tree: Path) -> None:
    with (small_tree / "src/flagscope/geometry/half.py").open("a") as file:
        file.write("\n\ndef tested(result):\n    return result\n")
    assert ends(small_tree, ["return n <= 5"], limit=600) == {"return n <= 5": "survived"}


def test_a_mistake_after_which_nothing_ends_is_timed_out(small_tree: Path) -> None:
    assert ends(small_tree, ["while n <= 9:"], limit=5) == {"while n <= 9:": "timed out"}


def test_a_test_that_fails_by_itself_catches_nothing(small_tree: Path) -> None:
    file = small_tree / "tests/geometry/test_half.py"
    file.write_text(file.read_text().replace("half(12)", "half(17)"))
    case = all_planted(small_tree)[0]
    tests = {case.path: plant_mistakes.nearest_tests(case.path, 1)}
    with pytest.raises(SystemExit, match="without a mistake"):
        list(plant_mistakes.outcomes([case], tests, jobs=1, limit=600))
