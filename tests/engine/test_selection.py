"""Layers and kinds of pairs that are asked for alone, and what is read for them."""

import pytest

import flagscope
from engine.models import gpt2, llama
from engine.scans import OnDisk, graph_of
from flagscope.engine import Settings, plan, run_scan
from flagscope.errors import InputError

CPU = {"device": "cpu"}


def found(checkpoint, **settings):
    result = run_scan(checkpoint, graph_of(checkpoint), Settings(**CPU, **settings))
    assert result.failures == []
    return result


def test_one_layer_costs_one_layer():
    checkpoint = OnDisk(llama(layers=4))
    result = found(checkpoint, layers=(2,))
    assert {pair.layer for pair in result.pairs} == {2}
    assert {group.layer for group in result.heads} == {2}
    # No link and no pair of the stream has its other end elsewhere.
    assert result.edges == []
    assert all(pair.name.count("layer.2") == pair.name.count("layer.") for pair in result.pairs)
    read = {name for name in checkpoint.reads if "layers." in name}
    assert read
    assert all("layers.2." in name for name in read)


def test_two_layers_have_what_is_between_them():
    checkpoint = llama(layers=4)
    whole, some = found(checkpoint), found(checkpoint, layers=(1, 2))
    names = {pair.name for pair in some.pairs}
    assert "layer.1.o-layer.2.q" in names
    assert names < {pair.name for pair in whole.pairs}
    numbers = {pair.name: pair.commutator_ratio for pair in whole.pairs}
    assert all(pair.commutator_ratio == numbers[pair.name] for pair in some.pairs)


@pytest.mark.parametrize("kinds", [("qk",), ("mlp", "residual")])
def test_kinds(kinds):
    result = found(llama(layers=2), kinds=kinds, edges=0)
    assert {pair.kind for pair in result.pairs} == set(kinds)
    assert result.settings.kinds == kinds


def test_a_layer_that_is_not_there():
    checkpoint = gpt2(layers=3)
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    with pytest.raises(InputError, match="there is no layer 3, 7") as caught:
        plan(graph_of(checkpoint), Settings(layers=(1, 3, 7)), sizes)
    assert caught.value.hint == "give some from 0 to 2"


def test_one_number_and_one_kind_need_no_list():
    checkpoint = llama(layers=2)
    state = {name: checkpoint.read(name) for name in checkpoint.tensors}
    report = flagscope.scan(state, config=checkpoint.config, layers=1, kinds="mlp", only="pairs")
    assert [pair.kind for pair in report.result.pairs] == ["mlp", "mlp"]
    assert report.result.settings.layers == (1,)
    ahead = flagscope.inspect(state, config=checkpoint.config, layers=1, kinds="mlp", only="pairs")
    assert [len(task.pairs) for task in ahead.tasks] == [2]
