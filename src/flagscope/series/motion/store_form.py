"""The states of a step as bytes in a store."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np
import torch

from flagscope.comparison.change.kept_directions import KeptDirections
from flagscope.series.motion.state import MapState
from flagscope.series.motion.step_states import MapPlace, States

# Fields of directions that are numbers, and the arrays of a state.
_NUMBERS = ("shape", "rank", "complete", "dense", "following", "turns")
_ARRAYS = ("sketch", "sigma", "left", "right")


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
            for name, tensor in zip(_ARRAYS, tensors, strict=True):
                arrays[f"{count}.{name}"] = tensor.numpy()
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
            state = None
            if numbers is not None:
                sketch, sigma, left, right = (
                    torch.from_numpy(arrays[f"{count}.{name}"]) for name in _ARRAYS
                )
                numbers |= {name: tuple(numbers[name]) for name in ("shape", "turns")}
                square, mean_square = numbers.pop("square"), numbers.pop("mean_square")
                directions = KeptDirections(**numbers, sigma=sigma, vectors=(left, right))
                state = MapState(square, mean_square, sketch, directions)
            found[MapPlace(**{**place, "shape": tuple(place["shape"])})] = state
    return found
