"""What a scan says it measured: every matrix is measured, or named with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import flagscope
from engine.models import decoder, own_names
from flagscope.records import Coverage, LeftOut


def covered(source: Any, **settings: Any) -> Coverage:
    found = flagscope.scan(source, workers=1, **settings).result.coverage
    assert found is not None
    assert found.matrices == found.measured + sum(one.matrices for one in found.left_out)
    return found


def left(coverage: Coverage, words: str) -> LeftOut:
    (entry,) = [one for one in coverage.left_out if words in one.reason]
    return entry


def test_what_is_not_placed_is_counted_beside_pairs() -> None:
    found = covered(own_names())
    assert (found.matrices, found.measured) == (36, 12)
    assert found.parameters == 6 * (4 * 64 * 64 + 2 * 64 * 128)
    assert found.parameters_measured == 6 * 2 * 64 * 128
    entry = left(found, "left unplaced")
    assert entry.names == ["layers.{0-5}.mix.{w_a,w_b,w_c,w_d}.weight"]
    assert (entry.matrices, entry.parameters, entry.expected) == (24, 6 * 4 * 64 * 64, False)


def test_and_where_there_is_no_pair_at_all() -> None:
    state = {name: tensor for name, tensor in own_names().items() if ".mix." in name}
    found = covered(state)
    assert (found.matrices, found.measured, found.parameters_measured) == (24, 0, 0)
    assert left(found, "left unplaced").matrices == 24


def test_a_known_model_leaves_its_ends() -> None:
    state, config = decoder()
    found = covered(state, config=config)
    assert (found.matrices, found.measured) == (23, 21)
    assert left(found, "embedding").names == ["model.embed_tokens.weight"]
    assert left(found, "output layer").names == ["lm_head.weight"]
    assert all(one.expected for one in found.left_out)
    assert found.parameters - found.parameters_measured == 2 * 8 * 16 + 16 + 3 * 2 * 16
    assert found.without_numbers == []


def test_what_is_not_asked_for_says_so() -> None:
    state, config = decoder()
    found = covered(state, config=config, only="heads")
    assert found.measured == 12
    entry = left(found, "not asked for")
    assert entry.names == ["model.layers.{0-2}.mlp.{down_proj,gate_proj,up_proj}.weight"]
    assert entry.expected


def test_links_alone_measure_what_they_join() -> None:
    """The first queries and keys read what no block wrote, and nobody reads the last MLP.

    The first values are the other factor of the circuit of what the first layer writes.
    """
    state, config = decoder()
    found = covered(state, config=config, only="residual")
    assert found.measured == 18
    assert left(found, "not asked for").names == [
        "model.layers.0.self_attn.{k_proj,q_proj}.weight", "model.layers.2.mlp.down_proj.weight",
    ]  # fmt: skip


def test_links_of_others_do_not_measure_what_has_no_number() -> None:
    state, config = decoder()
    state["model.layers.2.self_attn.q_proj.weight"].fill_(math.nan)
    found = covered(state, config=config, only="residual")
    assert left(found, "not finite").names == ["model.layers.2.self_attn.q_proj.weight"]
    assert found.measured == 17


def test_one_name_of_a_tied_weight_is_one_matrix() -> None:
    state, config = decoder()
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    found = covered(state, config=config)
    assert (found.matrices, found.measured) == (22, 21)


def test_a_shared_layer_is_measured_once() -> None:
    """Two names of one tensor, of which a pair reads the second."""
    state = {"spare.weight": torch.randn(8, 4), "2.weight": torch.randn(4, 8)}
    state["0.weight"] = state["spare.weight"]
    found = covered(state)
    assert (found.matrices, found.measured, found.parameters) == (2, 2, 64)


def test_buffers_are_no_matrices_and_are_named() -> None:
    state = {f"{i}.weight": torch.randn(8, 8) for i in (0, 2)}
    state |= {f"h.{i}.attn.bias": torch.ones(1, 1, 8, 8) for i in range(4)}
    found = covered(state)
    assert (found.matrices, found.parameters) == (2, 128)
    assert found.buffers == ["h.{0-3}.attn.bias"]


def test_an_empty_matrix_is_named() -> None:
    state = own_names() | {"layers.0.mix.none.weight": torch.zeros(0, 64)}
    assert left(covered(state), "empty").names == ["layers.0.mix.none.weight"]


def test_integers_that_nothing_unpacks_are_not_passed_over() -> None:
    state = {f"{i}.weight": torch.randn(8, 8) for i in (0, 2)}
    state["4.packed"] = torch.ones(64, 4, dtype=torch.uint8)
    found = covered(state)
    assert (found.matrices, found.measured) == (3, 2)
    assert left(found, "not read as weights").names == ["4.packed"]
    assert (found.parameters_measured, found.parameters) == (128, 128 + 256)


def test_a_depthwise_convolution_is_said_to_be_one() -> None:
    state = own_names() | {"layers.0.mix.depth.weight": torch.randn(64, 1, 7, 7)}
    assert left(covered(state), "depthwise").names == ["layers.0.mix.depth.weight"]


def test_a_matrix_without_a_number_is_not_measured() -> None:
    state = {f"{i}.weight": torch.randn(8, 8) for i in (0, 2, 4, 6)}
    state["6.weight"][0, 0] = math.nan
    found = covered(state)
    assert (found.matrices, found.measured) == (4, 3)
    assert left(found, "not finite").names == ["6.weight"]
    (lost,) = found.without_numbers
    assert (lost.what, lost.count, lost.of) == ("pairs", 1, 3)
    assert "NaN" in lost.reason


def test_zeros_are_told_from_what_is_not_finite() -> None:
    state = {f"{i}.weight": torch.randn(8, 8) for i in (0, 2, 4, 6, 8)}
    state["0.weight"].zero_()
    state["8.weight"][1, 1] = math.inf
    reasons = {one.reason: one.count for one in covered(state).without_numbers}
    assert reasons == {
        "weights that are all zero": 1, "weights that are not finite (NaN or infinity)": 1,
    }  # fmt: skip


def _set(name: str, value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        state[name].view(-1)[0] = value

    return change


# Heads of layer i write to those of layer i + 1, q, k and v, and to no other: 2 · 2 · 3 links each.
@pytest.mark.parametrize(
    ("change", "pairs", "links"),
    [
        # The first values are read through it, and are a factor of what its heads write.
        (_set("model.layers.0.input_layernorm.weight", math.nan), 0, 12),
        (_set("model.layers.2.input_layernorm.weight", math.nan), 6, 12),
        # One value head: its pair and all links from it.
        (_set("model.layers.0.self_attn.v_proj.weight", math.nan), 1, 6),
        # One query head, and the key head whose circuit it belongs to.
        (_set("model.layers.2.self_attn.q_proj.weight", math.nan), 3, 4),
    ],
)
def test_links_that_are_gone_are_counted(
    change: Callable[[dict[str, Tensor]], None], pairs: int, links: int
) -> None:
    state, config = decoder()
    before = flagscope.scan(state, config=config, workers=1).result
    assert before.edge_tests == 24
    change(state)
    result = flagscope.scan(state, config=config, workers=1).result
    assert result.coverage is not None
    lost = {one.what: one for one in result.coverage.without_numbers}
    gone = before.edge_tests - result.edge_tests
    assert gone == lost["links"].count
    assert gone == links
    assert lost["links"].of == 24
    blank = [pair for pair in result.pairs if pair.status != "ok"]
    assert len(blank) == (lost["pairs"].count if "pairs" in lost else 0) == pairs


def test_a_task_that_failed_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from flagscope.engine.run import attempt
    from flagscope.errors import CorruptFileError

    run = attempt.execute

    def broken(task: Any, *rest: Any) -> Any:
        if task.name.startswith("layers.1.ff.linear1"):
            raise CorruptFileError("the file ends here", hint="fetch it again")
        return run(task, *rest)

    monkeypatch.setattr(attempt, "execute", broken)
    found = covered(own_names(3))
    assert found.measured == 4
    assert left(found, "failed").names == ["layers.1.ff.{linear1,linear2}.weight"]
    (lost,) = found.without_numbers
    assert (lost.what, lost.count, lost.of, lost.reason) == ("pairs", 1, 3, "the task failed")


def test_part_of_a_fused_tensor_is_enough() -> None:
    draw = torch.Generator().manual_seed(1)
    state = {
        "h.0.attn.c_attn.weight": torch.randn(16, 48, generator=draw),
        "h.0.attn.c_proj.weight": torch.randn(16, 16, generator=draw),
        "h.0.mlp.c_fc.weight": torch.randn(16, 64, generator=draw),
        "h.0.mlp.c_proj.weight": torch.randn(64, 16, generator=draw),
        "wte.weight": torch.randn(9, 16, generator=draw),
    }
    state["h.0.attn.c_attn.weight"][0, 0] = math.nan  # of the first query head
    found = covered(state, heads=4)
    assert (found.matrices, found.measured) == (5, 4)


def test_inspect_says_what_a_scan_would_measure() -> None:
    state, config = decoder()
    ahead = flagscope.inspect(state, config=config).coverage
    assert ahead == covered(state, config=config)
    assert flagscope.inspect(own_names()).coverage.measured == 12


def test_names_of_a_hostile_file_stay_few() -> None:
    """Ten thousand matrices under names that have nothing in common, and very long ones."""
    draw = torch.Generator().manual_seed(3)
    words = torch.randint(0, 2**62, (10_000,), generator=draw).tolist()
    state = {f"{word:x}{'.' * (word % 9)}{word:o}": torch.zeros(2, 2) for word in words}
    state["x" * 100_000] = torch.zeros(2, 2)
    found = covered(state)
    assert found.matrices == 10_001
    assert sum(one.matrices for one in found.left_out) == 10_001
    assert len(found.left_out) < 10
    assert all(len(one.names) <= 6 for one in found.left_out)
    assert len(found.model_dump_json()) < 10_000
