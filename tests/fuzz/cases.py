"""Cases by their names: which seed, damaged how, read by which command."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzz.child import Ran, run
from fuzz.seeds import FILES, SEEDS
from fuzz.structure import mutated
from fuzz.verdict import faults, unforeseen


@dataclass(frozen=True)
class Case:
    """One damaged source and one command; `name` is all that it takes to make it again."""

    seed: int
    kind: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.seed}:{self.kind}:{self.number}"

    @classmethod
    def named(cls, name: str) -> Case:
        seed, kind, number = name.split(":")
        return cls(int(seed), kind, int(number))


@dataclass(frozen=True)
class Judged:
    """A case, how it ran, and what is wrong with that."""

    case: Case
    ran: Ran
    arguments: tuple[str, ...]
    faults: tuple[str, ...]
    unforeseen: str | None


class Cases:
    """Makes cases from seeds that are written once, in a folder that goes with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._baselines: dict[str, float] = {}

    def judged(self, case: Case, keep: Path | None = None) -> Judged:
        """Make a case, run it and judge it; its files stay where `keep` says."""
        base = self._baseline(case.kind)
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix="case"))
        rng = random.Random(case.name)
        try:
            source = folder / "source"
            shutil.copytree(self._written(case.kind), source)
            files = sorted(path for path in source.rglob("*") if path.is_file())
            for _ in range(rng.choice((1, 1, 1, 2))):
                mutated(rng.choice(files), rng)
            arguments = command(case.kind, source, rng)
            ran = run(arguments, folder)
            found = faults(ran, folder, baseline=base)
            if ran.hung:  # on a busy machine the clock may have run without it
                ran = run(arguments, folder, hang=3 * 20)
                found = faults(ran, folder, baseline=base) if ran.hung else []
            if keep is not None:
                shutil.copytree(folder, keep / case.name.replace(":", "-"), dirs_exist_ok=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Judged(case, ran, arguments, tuple(found), unforeseen(ran))

    def _written(self, kind: str) -> Path:
        folder = self._folder / kind
        if not folder.exists():
            folder.mkdir()
            SEEDS[kind](folder)
        return folder

    def _baseline(self, kind: str) -> float:
        """Megabytes of a scan of the seed as it is, which has to work."""
        if kind not in self._baselines:
            folder = self._folder / f"{kind} whole"
            shutil.copytree(self._written(kind), folder / "source")
            ran = run(("scan", *_options(kind, folder / "source"), "--workers", "1"), folder)
            if ran.code or ran.deeds.strip():
                raise ValueError(f"the seed {kind} is not read: {ran.err.decode()}{ran.deeds}")
            self._baselines[kind] = ran.megabytes
        return self._baselines[kind]


def command(kind: str, source: Path, rng: random.Random) -> tuple[str, ...]:
    """A command on a source, its outputs next to it."""
    options = _options(kind, source)
    match rng.randrange(10):
        case 0 | 1:
            return ("inspect", *options, "--no-estimate", *rng.choice(((), ("--maps", "--all"))))
        case 2:
            return ("heads", *options, "--top", "5")
        case 3:
            return ("scan", *options, "--workers", "1", "--html", "page.html", "--csv", "pairs.csv")
        case 4:
            return ("scan", *options, "--workers", "2", *_further(rng))
        case _:
            return ("scan", *options, "--workers", "1", "--json", "report.json")


def _further(rng: random.Random) -> tuple[str, ...]:
    return rng.choice(
        (
            (),
            ("--window", "3", "--edges", "0"),
            ("--rank", "energy:0.9", "--fold-norms", "all"),
            ("--rank", "fixed:3", "--only", "heads"),
            ("--heads", "4", "--only", "pairs"),
            ("--family", "none"),
        )
    )


def _options(kind: str, source: Path) -> tuple[str, ...]:
    named = source / FILES[kind] if kind in FILES else source
    more: Sequence[str] = ()
    if kind == "family":
        more = ("--family", str(source / "own.toml"))
    if kind == "store":
        more = ("--store", str(source / "store"))
    return (str(named), *more)


@contextmanager
def prepared() -> Iterator[Cases]:
    """A maker of cases; what they import is imported, so that each forks with it."""
    _imported()
    with tempfile.TemporaryDirectory(prefix="flagscope-fuzz-") as folder:
        yield Cases(Path(folder))


def _imported() -> None:
    import importlib

    for name in (
        "flagscope.api.scan", "flagscope.api.head_overlaps", "flagscope.cli.table",
        "flagscope.cli.console",
        "flagscope.report", "flagscope.report.page", "flagscope.arch", "pandas", "plotly.offline",
        "onnx.numpy_helper", "gguf", "h5py", "safetensors", "rich.progress", "sqlite3", "pydantic",
        "huggingface_hub", "torch._dynamo", "flagscope.live", "torch._subclasses",
    ):  # fmt: skip
        importlib.import_module(name)


def planned(seed: int, kinds: Sequence[str]) -> Iterator[Case]:
    """Cases without end, the kinds in turn."""
    number = 0
    while True:
        for kind in kinds:
            yield Case(seed, kind, number)
        number += 1
