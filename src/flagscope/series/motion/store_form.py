"""The states of a step as bytes in a store."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flagscope.comparison.change.kept_directions import KeptDirections
from flagscope.geometry.product_drift import ProductDrift
from flagscope.series.motion.product_state import ProductState
from flagscope.series.motion.product_states import ProductPlace
from flagscope.series.motion.state import MapState
from flagscope.series.motion.step_states import MapPlace, States

# Fields of directions that are numbers, and the arrays of a state.
_NUMBERS = ("shape", "rank", "complete", "dense", "following", "turns")
_ARRAYS = ("sketch", "sigma", "left", "right")
_DRIFTS = ("means", "squares", "edges", "sigma", "near")  # of products, of each side


def states_to_bytes(states: States) -> bytes:
    """The states of a step as bytes, which `states_from_bytes` reads."""
    arrays: dict[str, np.ndarray] = {}
    said = []
    for count, (place, state) in enumerate(states.items()):
        numbers = None
        if state is not None:
            directions = state.directions
            numbers = {name: getattr(directions, name) for name in _NUMBERS}
            numbers |= {"square": state.square, "mean_square": state.mean_square}
            tensors = (state.sketch, directions.sigma, *directions.vectors)
            named = dict(zip(_ARRAYS, tensors, strict=True))
            if isinstance(state, ProductState):
                numbers |= {"shared": state.shared, "factor_squares": state.factor_squares}
                numbers["outside"] = [drift.outside for drift in state.drifts]
                named |= _factors(state)
            arrays |= {f"{count}.{name}": tensor.numpy() for name, tensor in named.items()}
        said.append([asdict(place), numbers])
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(said).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, said=text, **arrays)
    return buffer.getvalue()


def states_from_bytes(body: bytes) -> dict[MapPlace, MapState | None]:
    """The states of a step that `states_to_bytes` wrote."""
    found: dict[MapPlace, MapState | None] = {}
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        for count, (place, numbers) in enumerate(json.loads(arrays["said"].tobytes())):
            if numbers is not None:
                numbers |= {name: tuple(numbers[name]) for name in ("shape", "turns")}
            form = ProductPlace if "shared" in place else MapPlace
            state = None if numbers is None else _state(numbers, f"{count}.", arrays)
            found[form(**{**place, "shape": tuple(place["shape"])})] = state
    return found


def _state(numbers: dict[str, Any], prefix: str, arrays: Mapping[str, np.ndarray]) -> MapState:
    def read(name: str) -> Tensor:
        return torch.from_numpy(arrays[prefix + name])

    sketch, sigma, left, right = (read(name) for name in _ARRAYS)
    held = {name: numbers[name] for name in _NUMBERS}
    state = MapState(
        square=numbers["square"],
        mean_square=numbers["mean_square"],
        sketch=sketch,
        directions=KeptDirections(**held, sigma=sigma, vectors=(left, right)),
    )
    if "shared" not in numbers:
        return state
    drifts = [
        ProductDrift(**{name: read(f"{side}.{name}") for name in _DRIFTS}, outside=outside)
        for side, outside in enumerate(numbers["outside"])
    ]
    return ProductState(
        **vars(state),
        shared=numbers["shared"],
        factor_squares=tuple(numbers["factor_squares"]),
        factor_sketches=(read("second"), read("first")),
        drifts=(drifts[0], drifts[1]),
    )


def _factors(state: ProductState) -> dict[str, Tensor]:
    second, first = state.factor_sketches
    drifts = {
        f"{side}.{name}": getattr(drift, name)
        for side, drift in enumerate(state.drifts)
        for name in _DRIFTS
    }
    return {"second": second, "first": first, **drifts}
