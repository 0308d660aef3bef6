"""Networks whose modules stand side by side, take turns, skip or are summed."""

import pytest

from arch.branching_networks import BRANCHING
from arch.test_reading import graph_of, right_claims

_OPEN = ("unknown", "norm")


@pytest.mark.parametrize(("make", "count"), BRANCHING, ids=lambda one: getattr(one, "__name__", ""))
def test_no_pair_fold_or_freedom_is_claimed_that_these_networks_do_not_have(make, count):
    found = true = 0
    for seed in range(count):
        net = make(seed)
        net.config = {"activation": "relu"}
        if seed % 2:  # as a safetensors file has it: the order says nothing
            net.state = dict(sorted(net.state.items()))
        graph = graph_of(net)
        found += right_claims(graph, net)
        true += len(net)
        for pair in graph.pairs:
            names = pair.write.map.tensor, pair.read.map.tensor
            assert pair.freedom == "none" or names in net.free, f"{net.kind}: {pair.name}"
            assert pair.between in _OPEN or names in net.free, f"{net.kind}: {pair.name}"
        used = {side.map.tensor for pair in graph.pairs for side in (pair.write, pair.read)}
        matrices = {name for name, w in net.state.items() if w.ndim > 1}
        assert matrices <= used | set(graph.unmapped)
        # What is in no pair is named in a note, by itself or among others.
        assert not graph.unmapped or any("in no pair" in note for note in graph.notes)
    few = make.__name__ in ("turns", "joined_branches")  # hardly a pair of these can be known
    assert few or found > 0.4 * true


def test_these_networks_are_many():
    assert sum(count for _, count in BRANCHING) >= 600
