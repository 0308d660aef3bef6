"""Bare state dicts of networks whose structure the test made: nothing wrong is claimed of them."""

import pytest
import torch

from arch.conv_networks import CONV_MAKERS
from arch.networks import MAKERS, Network
from arch.stream_networks import STREAM_MAKERS
from flagscope.arch import Graph, build_graph

RECALL = 0.95
ALL_MAKERS = (*MAKERS, *CONV_MAKERS, *STREAM_MAKERS)


def graph_of(net: Network) -> Graph:
    shapes = {name: tuple(w.shape) for name, w in net.state.items()}
    return build_graph(shapes, net.config, window=0 if net.residual is None else 2)


def tensor_of(graph: Graph, net: Network, name: str) -> torch.Tensor:
    parts = graph.stacked.get(name)
    return net.state[name] if parts is None else torch.stack([net.state[p] for p in parts])


def claims(graph: Graph, net: Network):
    """Each claimed pair: names of its tensors, and the Gram matrices of both maps."""
    for group in graph.pairs:
        stored = [tensor_of(graph, net, side.map.tensor) for side in (group.write, group.read)]
        write, read = group.write.write(stored[0]), group.read.read(stored[1])
        for member in group.members:
            w1, w2 = write[member.write_index], read[member.read_index]
            yield group, member, (w1 @ w1.mT, w2.mT @ w2)


def names_of(graph: Graph, group, member) -> tuple[str, str]:
    """The tensors of one member: of a stack the one that stands for its head."""
    found = []
    for side, index in ((group.write, member.write_index), (group.read, member.read_index)):
        parts = graph.stacked.get(side.map.tensor)
        found.append(side.map.tensor if parts is None else parts[index])
    return found[0], found[1]


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.shape == two.shape and torch.allclose(one, two, rtol=1e-9, atol=1e-9)


def right_claims(graph: Graph, net: Network) -> int:
    """How many true pairs are claimed; fails where a claim is wrong."""
    open_pairs = {names: list(pairs) for names, pairs in net.pairs.items()}
    right = 0
    for group, member, (a, b) in claims(graph, net):
        names = names_of(graph, group, member)
        if group.kind == "residual":
            true = (net.residual or {}).get(names)
            assert true is not None, f"{net.kind}: {member.name} does not lie along the stream"
            assert group.read_norm is not None
            assert group.read_norm.name == true
            continue
        fitting = [
            pair for pair in open_pairs.get(names, ()) if same(a, pair[0]) and same(b, pair[1])
        ]
        assert fitting, f"{net.kind}: {member.name} ({group.kind}) is no pair of this network"
        open_pairs[names] = [pair for pair in open_pairs[names] if pair is not fitting[0]]
        right += 1
        if group.write_norm is not None:
            assert group.write_norm.name in net.folds, f"{net.kind}: {group.write_norm.name} folded"
    return right


@pytest.mark.parametrize(("make", "count"), ALL_MAKERS, ids=[m.__name__ for m, _ in ALL_MAKERS])
def test_nothing_wrong_is_claimed_and_nearly_all_is_found(make, count):
    found = true = 0
    for seed in range(count):
        net = make(seed)
        graph = graph_of(net)
        found += right_claims(graph, net)
        true += len(net)
        used = {side.map.tensor for pair in graph.pairs for side in (pair.write, pair.read)}
        used |= {part for name in used for part in graph.stacked.get(name, ())}
        matrices = {n for n, w in net.state.items() if w.ndim > 1 and not n.endswith(".mask")}
        assert matrices <= used | set(graph.unmapped)
    if "siblings" not in make.__name__ and "mlp" not in make.__name__:
        assert found >= RECALL * true, f"{found} of {true} true pairs"
    else:
        assert found > 0.5 * true


def test_residual_pairs_are_found_where_names_show_the_norms():
    found = {}
    for make, _ in STREAM_MAKERS[:2]:
        for seed in range(44):
            net = make(seed)
            pairs = [pair for pair in graph_of(net).pairs if pair.kind == "residual"]
            found[net.kind] = found.get(net.kind, 0) + len(pairs)
    shown = [kind for kind, count in found.items() if count]
    assert len(shown) >= 10, found
    assert not [kind for kind in shown if not kind.startswith(("pre", "parallel", "Transformer"))]


def test_the_networks_are_many():
    assert sum(count for _, count in ALL_MAKERS) >= 2000
