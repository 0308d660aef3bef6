"""The motion of the maps of a series: `flagscope.track` reads each new step once for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from flagscope.api.source import checked_settings, mapped, opened
from flagscope.api.tracked_adapters import holds_adapter
from flagscope.api.tracked_scans import Asked, measurable
from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint
from flagscope.comparison.change.pairing import NamedMap, named_maps
from flagscope.engine import Settings
from flagscope.engine.plan.tasks import is_chosen
from flagscope.errors import FlagscopeError, InputError
from flagscope.records.series import Integrity
from flagscope.series.compared import Compared
from flagscope.series.motion.motions import Motions, map_motions
from flagscope.series.motion.not_at_last import not_at_last
from flagscope.series.motion.passed_over import passed_over
from flagscope.series.motion.product_state import KEPT_OF_PRODUCTS
from flagscope.series.motion.product_states import measured_products
from flagscope.series.motion.state import KEPT_DIRECTIONS
from flagscope.series.motion.step_states import States, measured_states
from flagscope.series.motion.store_form import states_from_bytes, states_to_bytes
from flagscope.series.step import Step
from flagscope.shortening import listed

_SCALE = (
    "Motions of maps are raw: that a norm behind a map makes its size and a change of it "
    "invisible is not taken into account."
)
_PRODUCTS = (
    "Products of maps are those between which nothing but a linear freedom lies: heads that "
    "normalise queries and keys, or clip them, have no QK product. Under a rotary embedding they "
    "are those of a query and a key at one position. Biases are not in them."
)
_LISTED = 5


def _key(asked: Asked) -> dict[str, Any]:
    """What the states of a step hang on, next to its files."""
    return {**asked.key, "motion": [KEPT_DIRECTIONS, KEPT_OF_PRODUCTS, torch.__version__]}


def series_motion(
    steps: Sequence[Step], run: str, found: tuple[Integrity, Compared], asked: Asked
) -> Motions:
    """Follow the maps of a series, and their products, from step to step.

    Parameters
    ----------
    steps
        All of the series; those that cannot be read, adapters, and those whose content belongs
        elsewhere are passed over, which a note says of the last two.
    run
        Name of the training; empty where there is no other.
    found
        What the look at integrity came to.
    asked
        Settings of the scan of each step, where states are kept, and where notes go.

    Raises
    ------
    InputError
        If an argument does not go with a checkpoint.
    """
    aside = passed_over(*found)
    done: list[int] = []

    def states(step: Step) -> States | None:
        done.append(1)
        asked.done(min(len(done), len(usable)), len(usable), f"following {step.place.in_run(run)}")
        return _states(step, run, asked)

    usable: dict[int, Callable[[], States | None]] = {
        count: partial(states, step)
        for count, step in enumerate(steps)
        if measurable(step) and step.place.name not in aside
    }
    reasons = {step.place.name: "adapter" for step in steps if holds_adapter(step)} | aside
    names = [
        f"{step.place.in_run(run)} ({reasons[step.place.name]})"
        for step in steps
        if step.place.name in reasons
    ]
    if names and usable:
        asked.note(f"Motions of maps pass over {listed(names, _LISTED)}.")
    if len(usable) < 2:
        return Motions()
    motions = map_motions(len(steps), usable)
    if motions.maps or motions.products:
        asked.note(_SCALE)
    for said in not_at_last(motions.maps, [step.place.in_run(run) for step in steps]):
        asked.note(said)
    if motions.products:
        asked.note(_PRODUCTS)
    return motions


def _states(step: Step, run: str, asked: Asked) -> States | None:
    """The states of a step, kept or measured; None where it cannot be measured."""
    known = None if asked.kept is None else asked.kept.data(step.place, _key(asked))
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
            measured = _measured(checkpoint, graph, settings)
    except InputError:
        raise
    except FlagscopeError as error:
        asked.note(f"{step.place.in_run(run)} was not measured: {error}")
        return None
    if asked.kept is not None:
        asked.kept.keep_data(step.place, _key(asked), states_to_bytes(measured))
    return measured


def _measured(checkpoint: Checkpoint, graph: Graph, settings: Settings) -> States:
    """Maps and products of the pairs asked for; their freedoms are those of the whole graph."""
    pairs = tuple(pair for pair in graph.pairs if is_chosen(pair, settings))
    wanted = {_where(named) for named in named_maps(replace(graph, pairs=pairs, heads=())).values()}
    maps = named_maps(graph).values()
    chosen = [named for named in maps if _where(named) in wanted]
    return {**measured_states(checkpoint, chosen), **measured_products(checkpoint, pairs, maps)}


def _where(named: NamedMap) -> tuple[object, ...]:
    map_ = named.map
    return map_.tensor, *map_.select.items(), *map_.window.items(), named.expert
