"""Scans of changed weights: what is labelled functional stays, what is labelled gauge moves."""

import pytest
import torch

pytest.importorskip("transformers")

import flagscope
from flagscope.diagnose import labels
from flagscope.reparameterize import applicable, apply, random_change
from reparameterize.models import Case

CASES = ("bert-relu", "llama", "qwen3", "olmo2", "deepseek_v3")
GAUGE = ("commutator_ratio", "gram_correlation", "imbalance", "cosines")


def scanned(case, state):
    return {one.name: one for one in flagscope.scan(state, config=case.config).result.pairs}


def numbers(record, name):
    value = getattr(record, name, None)
    value = getattr(record.functional, name, None) if value is None else value
    if value is None or name in ("profile", "incidence"):
        return None
    return torch.tensor(value, dtype=torch.float64).flatten()


def movement(before, after, name):
    old, new = numbers(before, name), numbers(after, name)
    if old is None or new is None:
        return 0.0 if old is new else float("inf")
    if old.shape != new.shape:
        return float("inf")
    # a flag defect of 1e-15 is 0: what counts is the size that the number can have
    return float((old - new).abs().max() / old.abs().max().clamp(min=1e-3))


def neighbour(symmetry, pair):
    """A pair that holds a changed map and is not the one whose space is changed."""
    if pair == getattr(symmetry.group, "name", None):
        return False
    expands = pair.endswith((".queries", ".keysvalues"))  # whose readers are the maps of heads
    return expands or (symmetry.kind == "scaling" and "mlp" in pair)


@pytest.mark.parametrize("name", CASES)
def test_labels_hold(name):
    case = Case(name)
    before = scanned(case, case.state)
    done = set()
    for seed, symmetry in enumerate(applicable(case.graph)):
        # Under a change of heads the records change places: a test of its own.
        if symmetry.kind in done or symmetry.kind == "heads":
            continue
        change = random_change(symmetry, generator=torch.Generator().manual_seed(seed))
        after = scanned(case, apply(case.state, change).state)
        moved = 0.0
        for pair, record in before.items():
            for observable, label in labels(record.freedom).items():
                by = movement(record, after[pair], observable)
                if neighbour(symmetry, pair):
                    continue
                if label == "functional" and symmetry.kind != "stream":
                    assert by < 1e-9, (symmetry.name, pair, observable, by)
                elif observable in GAUGE:
                    moved = max(moved, by)
        if symmetry.kind in ("gl", "rotary", "scaling") or symmetry.kind.endswith(" scale"):
            assert moved > 1e-3, symmetry.name
        done.add(symmetry.kind)


def test_a_change_inside_a_block_moves_residual_numbers_and_no_link():
    case = Case("llama")
    change = next(one for one in applicable(case.graph) if one.kind == "gl")
    state = apply(
        case.state, random_change(change, generator=torch.Generator().manual_seed(1))
    ).state
    before, after = (flagscope.scan(s, config=case.config).result for s in (case.state, state))
    assert change.group.kind == "ov"
    moved = {}
    for one, two in zip(before.pairs, after.pairs, strict=True):
        if one.kind == "residual":
            moved[one.name] = movement(one, two, "commutator_ratio")
            assert movement(one, two, "kernel_intersection") == 0
    touched = {name for name in moved if moved[name] > 1e-3}
    assert touched == {n for n in moved if n.startswith("layer.0.o-") or n.endswith("-layer.0.v")}
    assert {pair.freedom for pair in before.pairs if pair.name in touched} == {"outer"}
    assert len(before.edges) == len(after.edges) > 0
    links = {(edge.source, edge.target): edge for edge in after.edges}
    for edge in before.edges:
        other = links[edge.source, edge.target]
        assert other.overlap_ratio == pytest.approx(edge.overlap_ratio, rel=1e-9)
        assert other.composition == pytest.approx(edge.composition, rel=1e-9)


def test_heads_change_places_with_their_numbers():
    case = Case("llama")
    heads = next(one for one in applicable(case.graph) if one.kind == "heads")
    change = random_change(heads, generator=torch.Generator().manual_seed(1))
    before, after = (scanned(case, s) for s in (case.state, apply(case.state, change).state))
    for place, head in enumerate(change.values.tolist()):
        new, old = after[f"layer.0.head.{place}.qk"], before[f"layer.0.head.{head}.qk"]
        assert movement(old, new, "commutator_ratio") < 1e-9
        assert movement(old, new, "cosines") < 1e-9


def test_a_turned_stream_keeps_every_pair_but_for_the_folded_gains():
    case = Case("llama")
    stream = applicable(case.graph)[-1]
    turns = [random_change(stream, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    folded = apply(case.state, turns[0]).state
    before, after = scanned(case, folded), scanned(case, apply(folded, turns[1]).state)
    for pair, record in before.items():
        for observable in labels(record.freedom):
            assert movement(record, after[pair], observable) < 1e-9, (pair, observable)


def test_the_freedom_of_a_neighbour_moves_even_the_product():
    """Scaling `up` scales the columns of `down`, which gate-down reads too."""
    case = Case("llama")
    scaling = next(one for one in applicable(case.graph) if one.name == "layer.0.mlp.up: scaling")
    change = random_change(scaling, generator=torch.Generator().manual_seed(1))
    before, after = (scanned(case, s) for s in (case.state, apply(case.state, change).state))
    pair = "layer.0.mlp.gate"
    assert before[pair].freedom == "permutation"
    assert movement(before[pair], after[pair], "product_spectrum") > 1e-2
    assert movement(before[pair], after[pair], "commutator_ratio") > 1e-2
