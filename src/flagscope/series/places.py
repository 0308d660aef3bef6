"""Where the checkpoints of a series lie, and in which order."""

from __future__ import annotations

import fnmatch
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

from flagscope.checkpoint.folder import folders_with_weights
from flagscope.checkpoint.hub import is_hub_name, revisions
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.errors import InputError, MissingFileError
from flagscope.series.inside import PATTERN, UNFINISHED, is_weights, steps_inside
from flagscope.series.step_names import Unit, step_name
from flagscope.series.url_places import url_steps, url_weights
from flagscope.shortening import listed

_LISTED = 5


@dataclass(frozen=True)
class Place:
    """One checkpoint of a series, not yet opened.

    Attributes
    ----------
    source
        Path, URL or hub name.
    revision
        Of a hub name.
    name
        The part of the name that says which step it is.
    number, unit
        What the name says; None where it says nothing.
    unfinished
        Whether the name is one that writers give to what is not whole.
    """

    source: str
    name: str
    revision: str | None = None
    number: int | None = None
    unit: Unit | None = None
    unfinished: bool = False

    @property
    def is_local(self) -> bool:
        """Whether it is a path: neither a URL nor on the hub."""
        return self.revision is None and "://" not in self.source

    @property
    def path(self) -> Path | None:
        """Its file or folder on this machine; None behind a URL and on the hub."""
        return Path(self.source).expanduser() if self.is_local else None

    @property
    def folder(self) -> Path | None:
        """The folder that it is, or that its file is in; None as above."""
        return self.path if self.path is None or self.path.is_dir() else self.path.parent

    def in_run(self, run: str) -> str:
        """Its name, after that of its training where there are several."""
        return f"{run}/{self.name}" if run else self.name


def places(sources: Sequence[str | os.PathLike[str]]) -> list[Place]:
    """The checkpoints that sources name, of all runs, in numeric order of their steps.

    Parameters
    ----------
    sources
        Each a checkpoint; a folder of checkpoints, or of files of weights, one a step; a pattern
        (`runs/a/checkpoint-*`); a URL of these kinds (`url_steps`); or a hub name with a pattern of
        revisions (`org/name@step*`).
        Those without a number come last, in the order given; steps and epochs together stay in the
        order given.

    Returns
    -------
    list of Place
        Each place once. Those that would have one name in a training, such as `a/final.pt` and
        `b/final.pt`, have the part of their path that differs in their names.

    Raises
    ------
    InputError
        If nothing is given, or a source is not a path or a name.
    MissingFileError
        If a folder or a pattern holds no checkpoint.
    SourceError
        If a folder behind a URL cannot be listed.
    """
    if not sources:
        raise InputError("no checkpoint is named", hint="give a folder of checkpoints, or several")
    found: dict[tuple[str, str | None], Place] = {}
    for source in sources:
        if not isinstance(source, (str, os.PathLike)):
            raise InputError(
                f"a source is of type {type(source).__name__}",
                hint="give paths, patterns or hub names: a series is read from files",
            )
        for place in _of(os.fspath(source)):
            found.setdefault((place.source, place.revision), place)
    return _with_unique_names(in_order(found.values()))


def _with_unique_names(found: Sequence[Place]) -> list[Place]:
    """The places, each with a name that no other of its training has."""
    alike: dict[tuple[str, str], list[Place]] = {}
    for run, inside in runs_of(found).items():
        for place in inside:
            alike.setdefault((run, place.name), []).append(place)
    names = {
        place: "/".join(own)
        for group in alike.values()
        if len(group) > 1
        for place, own in zip(group, _differing([_path(one) for one in group]), strict=True)
    }
    return [replace(place, name=names.get(place, place.name)) for place in found]


def _path(place: Place) -> str:
    at = "" if place.revision is None else f"@{place.revision}"
    return place.source.rstrip("/") + at


def runs_of(found: Sequence[Place]) -> dict[str, list[Place]]:
    """Places by the training that they are of; one entry, named "", for a single training.

    Steps of one number in two folders, or in two repositories, are of two trainings, and then each
    folder is one. Folders without a number in common are parts of one training.

    Examples
    --------
    >>> steps = [Place(f"{run}/step-{i}", f"step-{i}", number=i) for run in "ab" for i in (0, 9)]
    >>> {name: len(run) for name, run in runs_of(steps).items()}
    {'a': 2, 'b': 2}
    """
    folders: dict[str, list[Place]] = {}
    for place in found:
        folders.setdefault(_folder(place), []).append(place)
    seen: dict[tuple[Unit | None, int], str] = {}
    several = False
    for folder, inside in folders.items():
        for place in inside:
            if place.number is not None:
                other = seen.setdefault((place.unit, place.number), folder)
                several = several or other != folder
    if not several:
        return {"": list(found)}
    return dict(zip(_run_names(list(folders)), folders.values(), strict=True))


def _folder(place: Place) -> str:
    if place.revision is not None:
        return place.source
    return place.source.rstrip("/").rpartition("/")[0]


def _run_names(folders: Sequence[str]) -> list[str]:
    """Of each folder the part of its path that tells it from the others."""
    ends = _differing(folders)
    end = _common_start([one[::-1] for one in ends])
    names = ["/".join(one[: len(one) - end]) for one in ends]
    names = [name or folder or "." for name, folder in zip(names, folders, strict=True)]
    return names if len(set(names)) == len(names) else [folder or "." for folder in folders]


def _differing(paths: Sequence[str]) -> list[list[str]]:
    """The parts of each path after what all begin with."""
    parts = [path.split("/") for path in paths]
    start = _common_start(parts)
    return [one[start:] for one in parts]


def _common_start(parts: Sequence[Sequence[str]]) -> int:
    """How many of the first entries are the same in all."""
    same = (len(set(entries)) == 1 for entries in zip(*parts, strict=False))
    return sum(1 for _ in itertools.takewhile(bool, same))


def left_out(sources: Sequence[str | os.PathLike[str]], found: Iterable[Place]) -> list[str]:
    """What lies in the folders that were named and is in no step, in words.

    Parameters
    ----------
    sources
        As for `places`.
    found
        What `places` gave for them.
    """
    said, taken = [], {place.source for place in found}
    for source in [os.fspath(source) for source in sources]:
        folder = source.rstrip("/") if "://" in source else str(Path(source).expanduser())
        if taken & {source, folder}:
            continue  # it is a checkpoint itself
        said += _passed_over(source, taken)
        if "://" in source:
            name, files = url_weights(source)
        else:
            name, files = Path(folder).name, _weights_in(Path(folder))
        rest = sorted(file for file in files if f"{folder}/{file}" not in taken)
        if rest:
            said.append(f"{listed(rest, _LISTED)} in {name} itself belongs to no step.")
    return said


def _passed_over(source: str, taken: set[str]) -> list[str]:
    """What a pattern on this machine matches and is in no step, in words."""
    path = Path(source).expanduser()
    if "://" in source or path.exists() or not any(sign in source for sign in PATTERN):
        return []
    above = taken | {place.rpartition("/")[0] for place in taken}
    lost = [one for one in _matches(path) if str(one) not in above]
    links = [one.name for one in lost if one.is_symlink()]
    others = [one.name for one in lost if not one.is_symlink()]
    said = []
    if links:
        said.append(f"{listed(links, _LISTED)} is a link to another step, which is read once.")
    if others:
        said.append(f"{listed(others, _LISTED)} matches the pattern and holds no checkpoint.")
    return said


def _weights_in(path: Path) -> list[str]:
    inside = path.iterdir() if path.is_dir() else ()
    return [entry.name for entry in inside if entry.is_file() and is_weights(entry.name)]


def in_order(found: Iterable[Place]) -> list[Place]:
    """By number, those without one last; as given where steps and epochs are mixed."""
    given = list(found)
    if len({place.unit for place in given if place.unit is not None}) > 1:
        return given
    return sorted(given, key=lambda place: (place.number is None, place.number or 0))


def _of(source: str) -> list[Place]:
    name, at, pattern = source.rpartition("@")
    if at and is_hub_name(name) and not Path(source).exists():
        wanted = [one for one in revisions(name) if fnmatch.fnmatchcase(one, pattern)]
        if not wanted:
            raise MissingFileError(
                f"{name} has no revision like {pattern!r}.",
                hint="its branches and tags are listed on its page of the hub.",
            )
        return [_place(name, one, revision=one) for one in wanted]
    if "://" in source:
        return [_place(url, RemotePath(url).name) for url in url_steps(source)]
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if any(sign in source for sign in PATTERN) and not path.exists():
        return _matching(source, path)
    return [_place(source, path.name)]


def _matches(path: Path) -> list[Path]:
    matched = sorted(glob(str(path)))  # noqa: PTH207 - Path.glob takes no absolute pattern
    return [Path(one) for one in matched if _may_be_one(Path(one))]


def _matching(source: str, pattern: Path) -> list[Place]:
    """The checkpoints that match; what holds none is passed over, which `left_out` says."""
    found: list[Place] = []
    why: MissingFileError | None = None
    for path in _matches(pattern):
        try:
            found += _in_folder(path)
        except MissingFileError as error:
            why = why or error
    if not found:
        raise why or MissingFileError(
            f"no checkpoint matches {source}.", hint="check the pattern and its folder."
        )
    return _without_links(found)


def _without_links(found: Sequence[Place]) -> list[Place]:
    """Places without links to others of them, such as `latest`."""
    links = {place.source for place in found if Path(place.source).is_symlink()}
    own = {os.path.realpath(place.source) for place in found if place.source not in links}
    kept = []
    for place in found:
        real = os.path.realpath(place.source)
        if place.source in links and real in own:
            continue
        own.add(real)
        kept.append(place)
    return kept


def _in_folder(path: Path) -> list[Place]:
    """One checkpoint that a folder is, or those in it."""
    if not path.is_dir():
        return [_place(str(path), path.name)]
    try:
        inside = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise MissingFileError(
            f"cannot read {path}: {error.strerror or error}.", hint="check that you may read it."
        ) from error
    files, folders = [], []
    for name in inside:  # a link to nothing counts as a file: what it should be is said
        (folders if (path / name).is_dir() else files).append(name)
    steps = steps_inside(files, [name for name in folders if _step_folder(path / name)])
    if steps is None:
        return [_place(str(path), path.name)]
    if not steps:
        below = folders_with_weights(path)
        runs = [name for name in folders if _holds_steps(path / name)]
        hint = f"it holds {listed(below, _LISTED)}." if below else "check the path."
        if runs:
            hint = f"{listed(runs, _LISTED)} in it hold steps: give {path}/*"
        if step_name(path.name) is not None:  # a step that was never written
            return [_place(str(path), path.name)]
        raise MissingFileError(
            f"{path} holds no checkpoints whose names say which step they are, as step_500, "
            "checkpoint-500, epoch-3 or one number alone do.",
            hint=hint,
        )
    return _without_links([_place(str(path / name), name) for name in steps])


def _step_folder(path: Path) -> bool:
    """Whether a folder is a step: its name says so, or it has a number and something in it."""
    said = step_name(path.name)
    if said is None or said.by_word:
        return said is not None
    try:
        return any(path.iterdir())
    except OSError:
        return True


def _holds_steps(path: Path) -> bool:
    try:
        return any(step_name(entry.name) is not None for entry in path.iterdir())
    except OSError:
        return False


def _may_be_one(path: Path) -> bool:
    return path.is_dir() or is_weights(path.name)


def _place(source: str, name: str, *, revision: str | None = None) -> Place:
    said = step_name(name)
    return Place(
        source=source,
        name=name,
        revision=revision,
        number=None if said is None else said.number,
        unit=None if said is None else said.unit,
        unfinished=UNFINISHED.search(name) is not None,
    )
