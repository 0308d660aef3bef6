"""The motion of the maps of a series: `flagscope.track` reads each new step once for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from flagscope.api.source import checked_settings, mapped, opened
from flagscope.arch import Graph
from flagscope.checkpoint.lora.settings import ADAPTER_FILES
from flagscope.comparison.change.pairing import NamedMap, named_maps
from flagscope.engine import Progress, Settings
from flagscope.engine.plan.tasks import is_chosen
from flagscope.errors import FlagscopeError, InputError
from flagscope.records.series import Integrity
from flagscope.records.series_motion import MapMotion
from flagscope.series.compared import Compared
from flagscope.series.kept import KeptSteps
from flagscope.series.motion.motions import map_motions
from flagscope.series.motion.passed_over import passed_over
from flagscope.series.motion.state import KEPT_DIRECTIONS
from flagscope.series.motion.step_states import States, measured_states
from flagscope.series.motion.store_form import states_from_bytes, states_to_bytes
from flagscope.series.step import Step
from flagscope.shortening import listed

if TYPE_CHECKING:
    from flagscope.api.source import Config

_SCALE = (
    "Motions of maps are raw: that a norm behind a map makes its size and a change of it "
    "invisible is not taken into account."
)
_LISTED = 5


@dataclass(frozen=True)
class _Asked:
    """What is asked for of each step."""

    wanted: Mapping[str, Any]
    config: Config | None
    kept: KeptSteps | None
    notes: list[str]

    @property
    def key(self) -> dict[str, Any]:
        """What the states of a step hang on, next to its files."""
        return {
            **self.wanted, "config": self.config, "version": version("flagscope"),
            "motion": [KEPT_DIRECTIONS, torch.__version__],
        }  # fmt: skip


def series_motion(
    steps: Sequence[Step],
    found: tuple[Integrity, Compared],
    *,
    wanted: Mapping[str, Any],
    config: Config | None,
    kept: KeptSteps | None,
    notes: list[str],
    progress: Progress | None,
) -> list[MapMotion]:
    """Follow the maps of a series from step to step.

    Parameters
    ----------
    steps
        All of the series; those that cannot be read, and those whose content belongs elsewhere, are
        passed over, which a note says.
    found
        What the look at integrity came to.
    wanted, config
        Settings of the scan of each step.
    kept
        Where the states of steps are kept.
    notes
        To which is added what was not looked at.
    progress
        Called with (steps done, steps in all, what is done).

    Raises
    ------
    InputError
        If an argument does not go with a checkpoint.
    """
    if any(_is_adapter(step) for step in steps):
        return []
    aside = passed_over(*found)
    if aside:
        names = [f"{name} ({code})" for name, code in aside.items()]
        notes.append(f"Motions of maps pass over {listed(names, _LISTED)}.")
    asked = _Asked(wanted, config, kept, notes)
    done: list[int] = []

    def states(step: Step) -> States | None:
        done.append(1)
        if progress is not None:
            progress(min(len(done), len(usable)), len(usable), f"following {step.place.name}")
        return _states(step, asked)

    usable: dict[int, Callable[[], States | None]] = {
        count: partial(states, step)
        for count, step in enumerate(steps)
        if step.fault is None and not step.place.unfinished and step.place.name not in aside
    }
    if len(usable) < 2:
        return []
    motions = map_motions(len(steps), usable)
    if motions:
        notes.append(_SCALE)
    return motions


def _is_adapter(step: Step) -> bool:
    return any(header.file in ADAPTER_FILES for header in step.headers.values())


def _states(step: Step, asked: _Asked) -> States | None:
    """The states of a step, kept or measured; None where it cannot be measured."""
    known = None if asked.kept is None else asked.kept.data(step.place, asked.key)
    if known is not None:
        return states_from_bytes(known)
    settings = checked_settings(
        only=("pairs",),
        **{name: value for name, value in asked.wanted.items() if value is not None},
    )
    source, revision = step.place.source, step.place.revision
    try:
        with ExitStack() as stack:
            stored = opened(source, config=asked.config, revision=revision, base=None)
            checkpoint, graph = mapped(stack.enter_context(stored), settings, source, None)
            measured = measured_states(checkpoint, _chosen(graph, settings))
    except InputError:
        raise
    except FlagscopeError as error:
        note = f"{step.place.name} was not measured: {error}"
        if note not in asked.notes:
            asked.notes.append(note)
        return None
    if asked.kept is not None:
        asked.kept.keep_data(step.place, asked.key, states_to_bytes(measured))
    return measured


def _chosen(graph: Graph, settings: Settings) -> list[NamedMap]:
    """The maps of the pairs that are asked for; their freedoms are those of the whole graph."""
    pairs = tuple(pair for pair in graph.pairs if is_chosen(pair, settings))
    wanted = {_where(named) for named in named_maps(replace(graph, pairs=pairs, heads=())).values()}
    return [named for named in named_maps(graph).values() if _where(named) in wanted]


def _where(named: NamedMap) -> tuple[object, ...]:
    map_ = named.map
    return map_.tensor, *map_.select.items(), *map_.window.items(), named.expert
