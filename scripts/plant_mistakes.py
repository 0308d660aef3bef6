"""Plant mistakes in the code, one at a time, and report which of them the nearest tests catch.

    python scripts/plant_mistakes.py --count 100 --seed 0 --jobs 2
    python scripts/plant_mistakes.py --count 100 --seed 0 --pick 17,42    # two of them again

Each mistake is drawn by room, kind and place in turn: the same seed gives the same mistakes as long
as src/ is the same. They are planted in temporary copies of the tree. A mistake is caught if a test
fails that passes without it. One that changes nothing that can be seen is listed with the reason in
equivalent_mistakes.toml. The tests are those of the module and of its room, and those that import
it, nearest first, up to the time limit.

Tools such as mutmut and cosmic-ray plant all mistakes of a module, or run one command of tests for
every mistake: here a sample over 200 modules needs the tests of each.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kinds_of_mistakes import Mistake, mistakes_in

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("src/flagscope")
ROOMS = ("geometry", "null", "diagnose", "arch", "engine", "report", "api")
OUTCOMES = ("caught", "survived", "timed out", "equivalent")
ON_IMPORT = "on import"  # before there is a test
COPIED = ("src", "tests", "docs", "scripts", "benchmarks")


@dataclass(frozen=True)
class Planted:
    """A mistake in a file of the tree, and whether it is known to change nothing."""

    number: int
    path: Path  # from the root
    source: str
    mistake: Mistake

    def __str__(self) -> str:
        return f"{self.number:3d} {self.path}:{self.mistake.line} {self.mistake.kind}"

    def text(self) -> str:
        """The source with the mistake."""
        return self.mistake.planted_in(self.source)

    def changes_code(self) -> bool:
        """Whether the mistake changes more than the looks of the code."""
        before, after = (ast.dump(ast.parse(text)) for text in (self.source, self.text()))
        return before != after

    def changed_lines(self) -> tuple[str, str]:
        """What stands in the changed lines before and after, without indentation."""
        changed = list(difflib.ndiff(self.source.splitlines(), self.text().splitlines()))
        old, new = (
            "\n".join(line[2:].strip() for line in changed if line[0] == sign) for sign in "-+"
        )
        return old, new


# Which mistakes


def drawn(count: int, seed: int) -> list[Planted]:
    """Mistakes of all rooms in equal number; within a room by kind, then by place."""
    rng = random.Random(seed)
    rooms = [_by_kind(ROOT / PACKAGE / room) for room in ROOMS]
    most = len(rooms) * min(sum(map(len, by_kind.values())) for by_kind in rooms)
    if count > most // 2:
        raise SystemExit(f"at most {most // 2} mistakes, not {count}")
    planted: list[Planted] = []
    while len(planted) < count:
        by_kind = rooms[len(planted) % len(rooms)]
        path, source, mistake = rng.choice(by_kind[rng.choice(sorted(by_kind))])
        case = Planted(len(planted) + 1, path, source, mistake)
        if case.changes_code() and all((path, mistake) != (c.path, c.mistake) for c in planted):
            planted.append(case)
    return planted


def _by_kind(room: Path) -> dict[str, list[tuple[Path, str, Mistake]]]:
    by_kind: dict[str, list[tuple[Path, str, Mistake]]] = {}
    for file in [room] if room.is_file() else sorted(room.rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        for mistake in mistakes_in(source):
            by_kind.setdefault(mistake.kind, []).append((file.relative_to(ROOT), source, mistake))
    return by_kind


def known_equivalents() -> dict[tuple[str, str, str], str]:
    """Reasons of the mistakes that no test can catch, by file name and the changed lines."""
    text = (ROOT / "scripts" / "equivalent_mistakes.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text).get("mistake", [])
    return {(entry["file"], entry["now"], entry["then"]): entry["why"] for entry in entries}


# Which tests


def _module(path: Path) -> str:
    """The dotted name under which a file of src/ or tests/ is imported."""
    return ".".join(path.with_suffix("").parts[1:]).removesuffix(".__init__")


@cache
def _imports() -> dict[str, set[str]]:
    """For each module of src/ and tests/ those that it imports, names followed to their home."""
    files = [file for top in ("src", "tests") for file in sorted((ROOT / top).rglob("*.py"))]
    faces = {_module(file.relative_to(ROOT)): file.name == "__init__.py" for file in files}
    named: dict[str, list[tuple[str, str]]] = {module: [] for module in faces}
    for module, file in zip(faces, files, strict=True):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named[module] += [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                named[module] += [(node.module, alias.name) for alias in node.names]

    def home(module: str, name: str) -> str:
        if f"{module}.{name}" in faces:
            return f"{module}.{name}"
        if faces.get(module):
            return next((home(*pair) for pair in named[module] if pair[1] == name), module)
        return module

    return {module: {home(*pair) for pair in pairs} for module, pairs in named.items()}


def nearest_tests(path: Path, most: int) -> list[str]:
    """The file's own examples, its namesakes, its room's tests and others, by steps of import."""
    *rooms, _ = path.relative_to(PACKAGE).parts
    steps = {_module(path): 0}
    border = [_module(path)]
    while border:
        border = [m for m, names in _imports().items() if m not in steps and names & {*border}]
        steps |= dict.fromkeys(border, max(steps.values()) + 1)
    tests = []
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        short = file.relative_to(ROOT)
        away = steps.get(_module(short))
        own = short.parts[1:-1] == tuple(rooms[:1])
        if away is not None and (own or away <= 2) and short.parts[1] != "lab":
            named = path.stem in short.stem
            tests.append((not named, not own, away, short))
    return [str(path), *(str(short) for *_, short in sorted(tests)[:most])]


# How it ends


class Copy:
    """A copy of the tree in which mistakes are planted one after the other."""

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pyc*"))
        for file in ROOT.iterdir():
            if file.is_file():
                shutil.copy(file, folder)
        # Known by content: two texts of one length within a second would pass for the same.
        command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash"]
        subprocess.run([*command, str(folder / "src")], check=True)

    def outcome(self, planted: Planted, tests: list[str]) -> tuple[str, str]:
        """Caught, survived or timed out; and the test that failed."""
        file = self.folder / planted.path
        file.write_text(planted.text(), encoding="utf-8")
        try:
            # Imported as a plugin, before pytest imports it for its examples and leaves its package
            # with another copy, in which tests would replace names to no effect.
            code, output = self.pytest("-p", _module(planted.path), *tests)
        finally:
            file.write_text(planted.source, encoding="utf-8")
        if not code:
            return "timed out" if code is None else "survived", ""
        failed = re.search(r"^(?:FAILED|ERROR) (.+?::.+?)(?: - .*)?$", output, re.MULTILINE)
        return "caught", failed.group(1) if failed else ON_IMPORT

    def assert_sound(self, tests: list[str]) -> None:
        """That these tests pass where no mistake is."""
        self.limit *= max(1, len(tests))
        code, output = self.pytest(*tests) if tests else (0, "")
        if code != 0:
            raise SystemExit(f"these fail without a mistake, too: mend them first\n{output}")

    def pytest(self, *arguments: str) -> tuple[int | None, str]:
        """Exit code, None where the time was over, and output."""
        paths = os.pathsep.join(str(self.folder / name) for name in ("src", "scripts"))
        settings = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=no",
             # Of the code only examples: it has functions with names such as "tested".
             "-o", "python_functions=test_*",
             *arguments], cwd=self.folder, env=os.environ | settings, text=True, encoding="utf-8",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own group: the tests' children, too
            process.communicate()
            return None, ""
        return process.returncode, output


def outcomes(
    planted: list[Planted], tests: dict[Path, list[str]], *, jobs: int, limit: float
) -> Iterator[tuple[Planted, str, str, float]]:
    """(mistake, outcome, test or reason, seconds), in order."""
    reasons = known_equivalents()
    with (
        tempfile.TemporaryDirectory(prefix="mistakes-") as folder,
        ThreadPoolExecutor(jobs) as pool,
    ):
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for number in range(jobs):
            copies.put(Copy(Path(folder) / str(number), limit))

        def ended(case: Planted) -> tuple[Planted, str, str, float]:
            reason = reasons.get((case.path.name, *case.changed_lines()))
            if reason is not None:
                return case, "equivalent", reason, 0.0
            copy, begun = copies.get(), time.monotonic()
            try:
                return case, *copy.outcome(case, tests[case.path]), time.monotonic() - begun
            finally:
                copies.put(copy)

        caught_by = set()
        for case, outcome, why, seconds in pool.map(ended, planted):
            if outcome == "caught":
                caught_by |= {why} if why != ON_IMPORT else {*tests[case.path]}
            yield case, outcome, why, seconds
        copies.get().assert_sound(sorted(caught_by - {ON_IMPORT}))


def diff(case: Planted) -> str:
    """The changed lines of a mistake, as in a patch."""
    old, new = case.changed_lines()
    lines = [f"    - {line}" for line in old.splitlines()]
    return "\n".join([*lines, *(f"    + {line}" for line in new.splitlines())])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="of mistakes")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=1, help="mistakes at the same time")
    parser.add_argument("--files", type=int, default=8, help="of tests for each, nearest first")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each")
    parser.add_argument("--pick", help="numbers of those to plant, with commas between")
    parser.add_argument("--list", action="store_true", help="only say what would be planted")
    return parser.parse_args()


def main() -> None:
    """Plant, run, and print what became of each mistake, and the table of all."""
    options = _options()
    planted = drawn(options.count, options.seed)
    if options.pick:
        numbers = {int(number) for number in options.pick.split(",")}
        planted = [case for case in planted if case.number in numbers]
    if options.list:
        print(*(f"{case}\n{diff(case)}" for case in planted), sep="\n")
        return
    tests = {case.path: nearest_tests(case.path, options.files) for case in planted}
    by_room: dict[str, Counter[str]] = {}
    for case, outcome, why, seconds in outcomes(
        planted, tests, jobs=options.jobs, limit=options.limit
    ):
        print(f"{outcome:10s} {case}  {why} ({seconds:.0f} s)", flush=True)
        if outcome in ("survived", "timed out"):
            print(diff(case), flush=True)
        by_room.setdefault(case.path.relative_to(PACKAGE).parts[0], Counter())[outcome] += 1
    print(f"\n{'':10s}" + "".join(f"{name:>12s}" for name in OUTCOMES))
    by_room["all"] = sum(by_room.values(), Counter())
    for room, counts in by_room.items():
        print(f"{room:10s}" + "".join(f"{counts[name]:12d}" for name in OUTCOMES))


if __name__ == "__main__":
    main()
