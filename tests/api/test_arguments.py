"""Every argument of every public function has its effect: none is dropped on the way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from inspect import isfunction, signature
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import flagscope
from flagscope.checkpoint.base import Checkpoint
from flagscope.cli.main import cli
from flagscope.errors import InputError

D, LAYERS = 16, 3
GPT2 = {"model_type": "gpt2", "n_embd": D, "n_head": 4, "n_layer": LAYERS}


def gpt2(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, 4 * D)}
    shapes |= {"mlp.c_proj": (4 * D, D), "ln_1": (D,), "ln_2": (D,)}
    return {
        f"h.{layer}.{name}.weight": torch.randn(shape, generator=generator)
        for layer in range(LAYERS)
        for name, shape in shapes.items()
    }


def moved() -> dict[str, Tensor]:
    """The same weights after a small step."""
    step = gpt2(seed=9)
    return {name: tensor + 0.05 * step[name] for name, tensor in gpt2().items()}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))


# For each argument: what a call gets besides source and config, and what then comes out otherwise.
# Of an argument that these weights cannot go with, the word by which the refusal names it.
Case = tuple[dict[str, Any], Callable[[Any], Any]] | str
OF_SOURCES: dict[str, Case] = {
    "config": ({"config": {**GPT2, "n_head": 2}}, lambda r: heads_of(r)),
    "revision": "revision",
    "base": "base",
    "tensors": "tensors",
    "family": ({"family": "none"}, lambda r: family_of(r)),
    "heads": ({"heads": 2}, lambda r: heads_of(r)),
    "example_inputs": "example_inputs",
}
SCAN: dict[str, Case] = OF_SOURCES | {
    "source": ({"source": gpt2(seed=1)}, lambda r: r.pairs["commutator_ratio"][0]),
    "only": ({"only": "heads"}, lambda r: (len(r.pairs), len(r.heads))),
    "rank": ({"rank": "fixed:2"}, lambda r: set(r.pairs_all["effective_rank_write"]) == {2}),
    "fdr": ({"fdr": 0.5}, lambda r: r.result.settings.fdr),
    "fold_norms": ({"fold_norms": "all"}, lambda r: [h.folded for h in r.result.heads]),
    "window": ({"window": 2}, lambda r: r.pairs["name"].tolist()),
    "edges": ({"edges": 3}, lambda r: len(r.edges)),
    "layers": ({"layers": 0}, lambda r: len(r.result.pairs)),
    "kinds": ({"kinds": ("qk", "mlp")}, lambda r: len(r.result.pairs)),
    "precision": ({"precision": "float32"}, lambda r: r.pairs["commutator_ratio"].tolist()),
    "seed": ({"seed": 7}, lambda r: r.result.settings.seed),
    "device": "abacus",
    "workers": ({"workers": 3}, lambda r: r.result.run.workers),
}
INSPECT: dict[str, Case] = OF_SOURCES | {
    "source": ({"source": network()}, lambda r: r.parameters),
    "only": ({"only": "heads"}, lambda r: len(r.tasks)),
    "window": ({"window": 2}, lambda r: len(r.graph.pairs)),
    "edges": ({"edges": 0}, lambda r: sum(len(task.links) for task in r.tasks)),
    "layers": ({"layers": 0}, lambda r: len(r.tasks)),
    "kinds": ({"kinds": ("qk", "mlp")}, lambda r: sum(len(task.pairs) for task in r.tasks)),
    "precision": ({"precision": "float32"}, lambda r: bytes_working(r)),
    "workers": ({"workers": 3, "estimate": True}, lambda r: r.estimate and r.estimate.workers),
    "estimate": ({"estimate": True}, lambda r: r.estimate is None),
}
HEADS: dict[str, Case] = OF_SOURCES | {
    "source": ({"source": gpt2(seed=1)}, lambda r: r["q"].overlap_ratio),
    "spaces": ({"spaces": "o"}, lambda r: [heads.space for heads in r.spaces]),
    "fold_norms": ({"fold_norms": "none"}, lambda r: (r.fold_norms, r["q"].overlap_ratio)),
    "top": ({"top": 2}, lambda r: len(r["q"].pairs)),
    "memory": "memory",
    "device": "abacus",
}
COMPARE: dict[str, Case] = {
    "a": ({"a": gpt2(seed=1)}, lambda r: r.verdict.code),
    "b": ({"b": gpt2(seed=1)}, lambda r: r.verdict.code),
    "parents": ({"parents": [gpt2(seed=1)]}, lambda r: len(r.result.parents)),
    "only": ({"only": "content"}, lambda r: r.result.change is None),
    "config": ({"config": {**GPT2, "n_head": 2}}, lambda r: len(r.heads)),
    "family": ({"family": "none"}, lambda r: r.result.a.family),
    "heads": ({"heads": 2}, lambda r: len(r.heads)),
    "revision_a": "revision",
    "revision_b": "revision",
}
REFUSED = {"base": "nowhere", "tensors": "nowhere", "device": "abacus", "memory": 1.0,
           "revision": "main", "revision_a": "main", "revision_b": "main",
           "example_inputs": torch.zeros(1)}  # fmt: skip
FUNCTIONS = {
    flagscope.scan: SCAN, flagscope.inspect: INSPECT, flagscope.head_overlaps: HEADS,
    flagscope.families: {}, flagscope.compare: COMPARE, flagscope.track: {},
}  # fmt: skip
# Those whose effect is in a test of its own below.
ALONE = {
    flagscope.scan: {"executor", "store", "memory", "progress", "depth"},
    flagscope.inspect: {"memory", "depth"},
    flagscope.head_overlaps: {"progress"},
    flagscope.compare: {"adapter", "workers", "memory", "progress"},
    flagscope.track: set(signature(flagscope.track).parameters),  # in test_track.py
}


def family_of(result: Any) -> str:
    if isinstance(result, flagscope.Inspection):
        return result.graph.family
    return result.result.family if isinstance(result, flagscope.Report) else result.family


def heads_of(result: Any) -> list[int]:
    if isinstance(result, flagscope.Inspection):
        return [group.count for group in result.graph.heads]
    if isinstance(result, flagscope.Report):
        return [group.count for group in result.result.heads]
    return [len(space.heads) for space in result.spaces]


def bytes_working(inspection: flagscope.Inspection) -> list[int]:
    return [task.bytes_working for task in inspection.tasks]


def usual(function: Any) -> dict[str, Any]:
    if function is flagscope.compare:
        return {"a": gpt2(), "b": moved(), "config": GPT2}
    return {"source": gpt2(), "config": GPT2}


@cache
def unchanged(function: Any) -> Any:
    """What comes out with no further argument."""
    return function(**usual(function))


def test_every_public_function_and_each_argument_has_a_test() -> None:
    public = {getattr(flagscope, name) for name in flagscope.__all__}
    assert {value for value in public if isfunction(value)} == set(FUNCTIONS)
    for function, cases in FUNCTIONS.items():
        assert {*cases, *ALONE.get(function, ())} == set(signature(function).parameters), function


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        pytest.param(function, argument, id=f"{function.__name__}-{argument}")
        for function, cases in FUNCTIONS.items()
        for argument in cases
    ],
)
def test_each_argument_has_its_effect(function: Any, argument: str) -> None:
    case = FUNCTIONS[function][argument]
    given = usual(function)
    if isinstance(case, str):
        with pytest.raises(InputError, match=case):
            function(**given, **{argument: REFUSED[argument]})
    else:
        changes, seen = case
        assert seen(function(**{**given, **changes})) != seen(unchanged(function))


@pytest.mark.parametrize(
    ("function", "others"), [(flagscope.inspect, set()), (flagscope.head_overlaps, {"fold_norms"})]
)
def test_what_two_functions_take_has_one_default(function: Any, others: set[str]) -> None:
    ours, theirs = (signature(one).parameters for one in (flagscope.scan, function))
    both = ours.keys() & theirs.keys()
    assert {name for name in both if ours[name].default != theirs[name].default} == others


@pytest.mark.parametrize(
    ("function", "command", "others"),
    [(flagscope.scan, "scan", {"executor"}), (flagscope.inspect, "inspect", {"estimate"}),
     (flagscope.head_overlaps, "heads", {"spaces"}), (flagscope.compare, "compare", {"a", "b"})],
)  # fmt: skip
def test_a_command_has_the_defaults_of_its_function(
    function: Any, command: str, others: set[str]
) -> None:
    given = (
        cli.commands[command].make_context(command, ["model"] * (1 + (command == "compare"))).params
    )
    taken = signature(function).parameters
    both = (given.keys() & taken.keys()) - {"source"}
    assert {name for name in both if given[name] != taken[name].default} == others


@pytest.mark.parametrize("function", [flagscope.scan, flagscope.inspect, flagscope.head_overlaps])
def test_example_inputs_are_traced(function: Any) -> None:
    def assumed(**given: Any) -> bool:
        result = function(network(), **given)
        notes = result.result.notes if isinstance(result, flagscope.Report) else result.notes
        return any("assumed for tracing" in note for note in notes)

    assert assumed()
    assert not assumed(example_inputs=torch.zeros(2, 4))


@pytest.mark.parametrize("function", [flagscope.scan, flagscope.inspect, flagscope.head_overlaps])
def test_one_group_of_tensors_is_read(function: Any) -> None:
    both = {f"{group}.{name}": tensor for group in "ab" for name, tensor in gpt2(seed=3).items()}
    source = {name: tensor if name[0] == "a" else 2 * tensor for name, tensor in both.items()}
    chosen = function(source, config=GPT2, tensors="a")
    assert family_of(chosen) == "gpt2"
    assert heads_of(chosen) == heads_of(function(gpt2(seed=3), config=GPT2))


def test_a_scan_runs_on_the_executor_that_is_given() -> None:
    class Watched(ThreadPoolExecutor):
        submitted = 0

        def submit(self, *call: Any, **more: Any) -> Any:
            self.submitted += 1
            return super().submit(*call, **more)

    with Watched(2) as pool:
        report = flagscope.scan(gpt2(), config=GPT2, executor=pool)
        assert pool.submitted >= report.result.run.tasks


def test_a_sharp_scan_computes_less() -> None:
    wide = torch.nn.Sequential(torch.nn.Linear(300, 310), torch.nn.Linear(310, 300))
    full, sharp = (flagscope.scan(wide, depth=depth).result.pairs[0] for depth in ("full", "sharp"))
    assert (full.depth, sharp.depth) == ("full", "sharp")
    ahead = (flagscope.inspect(wide, depth=depth).tasks[0].flops for depth in ("full", "sharp"))
    assert len({*ahead}) == 2


def test_a_scan_takes_from_its_store(tmp_path: Path) -> None:
    runs = [flagscope.scan(gpt2(), config=GPT2, store=tmp_path).result.run for _ in range(2)]
    assert [run.tasks_from_store for run in runs] == [0, runs[0].tasks]


def test_a_scan_tells_its_progress() -> None:
    calls: list[tuple[int, int, str]] = []
    report = flagscope.scan(gpt2(), config=GPT2, progress=lambda *call: calls.append(call))
    assert [done for done, *_ in calls] == [*range(1, report.result.run.tasks + 1)]


def test_heads_tell_their_progress() -> None:
    calls: list[tuple[int, int, str]] = []
    flagscope.head_overlaps(gpt2(), config=GPT2, progress=lambda *call: calls.append(call))
    assert [call[:2] for call in calls] == [(done, 4 * LAYERS) for done in range(1, 4 * LAYERS + 1)]
    assert calls[-1][2] == f"layer {LAYERS - 1}, o of the decoder"


def test_a_scan_holds_no_more_than_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room nothing is held from one task to the next, and tensors are read again."""
    save_file(gpt2(), tmp_path / "model.safetensors")
    read = Checkpoint.read
    reads: list[str] = []

    def counted(self: Checkpoint, name: str, *more: Any) -> Tensor:
        reads.append(name)
        return read(self, name, *more)

    monkeypatch.setattr(Checkpoint, "read", counted)
    counts = []
    for memory in (3_000_000_000, 0):
        reads.clear()
        flagscope.scan(tmp_path / "model.safetensors", config=GPT2, workers=1, memory=memory)
        counts.append(len(reads))
    assert counts[0] < counts[1]


def test_an_estimate_is_that_of_the_memory(tmp_path: Path) -> None:
    save_file(gpt2(), tmp_path / "model.safetensors")
    taken = [
        flagscope.inspect(
            tmp_path / "model.safetensors", config=GPT2, workers=2, memory=memory, estimate=True
        ).estimate
        for memory in (3_000_000_000, 0)
    ]
    assert taken[0] is not None
    assert taken[1] is not None
    assert taken[0].bytes_memory != taken[1].bytes_memory


def test_a_comparison_takes_what_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    from flagscope.api import compared_models

    given: list[dict[str, Any]] = []
    changed_maps = compared_models.changed_maps

    def watched(*sides: Any, **settings: Any) -> Any:
        given.append(settings)
        return changed_maps(*sides, **settings)

    monkeypatch.setattr(compared_models, "changed_maps", watched)
    calls: list[tuple[int, int, str]] = []
    flagscope.compare(
        gpt2(), moved(), config=GPT2, workers=3, memory=1_000_000,
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    assert (given[0]["workers"], given[0]["memory"]) == (3, 1_000_000)
    assert calls[-1][0] == calls[-1][1] > 0


def test_a_comparison_looks_for_the_adapter_that_is_given(tmp_path: Path) -> None:
    with pytest.raises(flagscope.MissingFileError, match="not an adapter"):
        flagscope.compare(gpt2(), moved(), config=GPT2, adapter=tmp_path)
