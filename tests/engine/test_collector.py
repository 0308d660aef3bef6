"""Outcomes put together: the same whatever the order in which they come."""

import random

import pytest
from benchmarks.models import gpt2

import flagscope
from flagscope.engine.run.collector import ScanCollector
from flagscope.engine.run.outcome import TaskResult
from flagscope.records import FailureRecord

SURFACES, EDGES = 7, 5


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Eight tasks, one of them failed, with pairs and links of few different distances."""
    folder = gpt2(tmp_path_factory.mktemp("model"), layers=2, d=16, heads=2)
    scanned = flagscope.scan(folder, device="cpu").result
    assert len(scanned.edges) >= 2
    drawn = random.Random(0)
    found = {}
    for place in range(8):
        pairs = [
            pair.model_copy(update={"log10_p": drawn.choice([None, -1.0, -2.0, -3.0])})
            for pair in drawn.sample(scanned.pairs, 4)
        ]
        edges = [
            drawn.choice(scanned.edges).model_copy(update={"overlap_z": drawn.choice([1.0, 9.0]),
                                                           "composition_z": None})
            for _ in range(3)
        ]  # fmt: skip
        found[place] = TaskResult(pairs, scanned.heads[place : place + 1], edges, edge_tests=10)
    found[3] = FailureRecord(task="the fourth", error="no such tensor", hint=None)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_arrival_does_not_matter(outcomes, seed):
    gathered = ScanCollector(edges=EDGES, surfaces=SURFACES)
    places = list(outcomes)
    random.Random(seed).shuffle(places)
    for count, place in enumerate(places, 1):
        gathered.add(place, outcomes[place])
        assert len(gathered) == count
        # What is let go is let go at once.
        assert sum(pair.incidence is not None for pair in gathered.pairs) <= SURFACES
        assert len(gathered.edges) <= EDGES
    results = [outcomes[place] for place in range(8) if place != 3]
    pairs = [pair for result in results for pair in result.pairs]
    nearest = sorted(range(len(pairs)), key=lambda i: pairs[i].log10_p or 0.0)
    drawn = set(nearest[:SURFACES])
    assert gathered.pairs == [
        pair if i in drawn else pair.model_copy(update={"incidence": None})
        for i, pair in enumerate(pairs)
    ]
    edges = [edge for result in results for edge in result.edges]
    assert gathered.edges == sorted(edges, key=lambda edge: -edge.overlap_z)[:EDGES]
    assert gathered.heads == [head for result in results for head in result.heads]
    assert gathered.edge_tests == 70
    assert [failure.task for failure in gathered.failures] == ["the fourth"]


def test_what_a_task_gave_is_left_as_it_is(outcomes):
    gathered = ScanCollector(edges=0, surfaces=0)
    gathered.add(0, outcomes[0])
    assert all(pair.incidence is None for pair in gathered.pairs)
    assert all(pair.incidence is not None for pair in outcomes[0].pairs)
    assert gathered.edges == []
