"""A series behind URLs: `track(verify=True)` reads less than 1 % of the bytes, in few requests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flagscope import track
from remote.conftest import Put, in_folder, sharded, single
from remote.stores import Log, Web

_STEPS = (0, 100, 200)
# docs/track.md promises it from 25 MB a file on.
_LEAST = 25_000_000


def _gpt(d: int, layers: int, vocabulary: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights of a GPT-2 without its tokenizer, with biases and norms between the matrices."""
    draws = torch.Generator().manual_seed(0)
    # Matrices alternate, so that two shards are of about one size.
    shapes = {
        "attn.c_attn.weight": (d, 3 * d), "mlp.c_fc.weight": (d, 4 * d),
        "mlp.c_proj.weight": (4 * d, d), "attn.c_proj.weight": (d, d), "attn.c_attn.bias": (3 * d,),
        "mlp.c_fc.bias": (4 * d,), "mlp.c_proj.bias": (d,), "attn.c_proj.bias": (d,),
        "ln_1.weight": (d,), "ln_1.bias": (d,), "ln_2.weight": (d,), "ln_2.bias": (d,),
    }  # fmt: skip
    shapes = {f"h.{i}.{name}": shape for i in range(layers) for name, shape in shapes.items()}
    shapes |= {"wpe.weight": (256, d), "wte.weight": (vocabulary, d)}
    return {n: torch.randn(*shape, generator=draws).to(dtype) for n, shape in shapes.items()}


def _series(kind: str) -> dict[str, dict[str, bytes]]:
    """Files of each step; each file is a little larger than what the promise begins at."""
    if kind == "single":
        state, packed = _gpt(384, 6, 6500, torch.bfloat16), single
    else:
        state, packed = _gpt(512, 7, 7300, torch.bfloat16), lambda state: sharded(state, 2)
    files = {}
    for number in _STEPS:
        moved = {name: (one.float() * (1 + number / 1000)).to(one.dtype)
                 for name, one in state.items()}  # fmt: skip
        files[f"checkpoint-{number}"] = packed(moved)
    return files


def _weights(files: dict[str, dict[str, bytes]]) -> int:
    sizes = [len(data) for step in files.values() for name, data in step.items()
             if name.endswith(".safetensors")]  # fmt: skip
    assert _LEAST <= min(sizes) < 1.2 * _LEAST
    return sum(sizes)


@pytest.mark.parametrize(
    ("store", "kind"), [("web", "single"), ("web", "sharded"), ("s3", "sharded")]
)
def test_less_than_a_hundredth_is_read(
    kind: str, store: str, request: pytest.FixtureRequest, tmp_path
) -> None:
    files = _series(kind)
    urls, log = _put(store, files, request)
    far = track(urls, verify=True)
    read, requests = log.sent(), log.count("GET")
    assert read < 0.01 * _weights(files)
    # Matrices have four windows each, and there are 26 or 30 of them.
    assert requests <= len(_STEPS) * 160
    for name, step in files.items():
        in_folder(step, tmp_path / name)
    near = track([tmp_path / name for name in files], verify=True)
    there, here = far.result.integrity.not_looked_at, near.result.integrity.not_looked_at
    assert [said.partition(":")[0] for said in there if said not in here] == [
        "Optimisers are read on this machine alone"
    ]
    plain = {"not_looked_at": []}
    assert far.result.integrity.model_copy(update=plain) == near.result.integrity.model_copy(
        update=plain
    )
    assert [step.status for step in far.result.steps] == ["ok"] * len(_STEPS)
    same = ("distance", "distance_first", "correlation_first", "bytes_sampled", "bytes_total")
    assert far.steps[list(same)].equals(near.steps[list(same)])


def _put(
    store: str, files: dict[str, dict[str, bytes]], request: pytest.FixtureRequest
) -> tuple[list[str], Log]:
    every = {f"{step}/{name}": data for step, own in files.items() for name, data in own.items()}
    if store == "web":
        web: Web = request.getfixturevalue("web")
        web.files = {f"/run/{name}": data for name, data in every.items()}
        return [f"{web.url}/run/{step}/" for step in files], web.log
    put: Put
    put, log = request.getfixturevalue("bucket")
    root = put(every)
    return [f"{root}{step}/" for step in files], log


@pytest.mark.parametrize(
    ("spare", "requests"), [(0.0, [(0, 20), (35_000, 35_010), (60_000, 60_010), (99_000, 99_010)]),
                            (0.4, [(0, 20), (35_000, 60_010), (99_000, 99_010)])],
)  # fmt: skip
def test_narrow_gaps_are_closed_first(
    spare: float, requests: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flagscope.checkpoint.remote import path as module

    monkeypatch.setattr(module, "_GAP", 0 if spare == 0 else 39_000)
    spans = [(0, 10), (60_000, 60_010), (10, 20), (35_000, 35_010), (99_000, 99_010)]
    joined: Callable[..., list[tuple[int, int]]] = module._joined
    assert joined(spans, spare=spare * 100_000) == requests
