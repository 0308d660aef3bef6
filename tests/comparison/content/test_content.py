"""Pairs, layers, mixtures and relations: planted answers."""

from __future__ import annotations

import pytest
import torch

from flagscope.checkpoint import from_state_dict
from flagscope.comparison.content.compared import compared_content
from flagscope.comparison.content.pairing import common_prefixes
from flagscope.errors import InputError
from flagscope.records.comparison.content import ContentRecord

D, F, LAYERS, WORDS = 48, 96, 6, 200


def made(seed, *, layers=LAYERS, words=WORDS, prefix="model."):
    """A small transformer's weights, independent of those of every other seed."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    state = {f"{prefix}embed_tokens.weight": normal(words, D)}
    for layer in range(layers):
        at = f"{prefix}layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            state[f"{at}self_attn.{name}.weight"] = normal(D, D)
        state[f"{at}mlp.up_proj.weight"] = normal(F, D)
        state[f"{at}mlp.down_proj.weight"] = normal(D, F)
        state[f"{at}input_layernorm.weight"] = 1 + 0.1 * normal(D)
    state[f"{prefix}norm.weight"] = 1 + 0.1 * normal(D)
    state["lm_head.weight"] = normal(words, D)
    return state


def tuned(state, size, seed=100):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + size * tensor.std() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in state.items()
    }


def with_layers(state, order):
    """The model with layers in this order."""
    out = {name: tensor for name, tensor in state.items() if ".layers." not in name}
    for place, layer in enumerate(order):
        for name, tensor in state.items():
            if f".layers.{layer}." in name:
                out[name.replace(f".layers.{layer}.", f".layers.{place}.")] = tensor
    return out


def content(a, b, **options):
    """The record; both orders must give the same relation, and JSON must hold it."""
    record = compared_content(from_state_dict(a), from_state_dict(b), **options)
    turned = compared_content(from_state_dict(b), from_state_dict(a), **options)
    assert turned.relation == record.relation
    assert ContentRecord.model_validate_json(record.model_dump_json()) == record
    mirrored = record.mirrored()
    assert mirrored.mirrored() == record
    assert mirrored.evidence == compared_words(mirrored)
    assert {(t.name_b, t.name_a, t.content) for t in record.tensors} == {
        (t.name_a, t.name_b, t.content) for t in turned.tensors
    }
    return record


def compared_words(record):
    from flagscope.records.comparison.content_words import worded

    return worded(record).evidence


def test_the_same_weights_are_identical():
    record = content(made(0), made(0))
    assert record.relation == "identical"
    assert all(tensor.difference.relative_a == 0 for tensor in record.tensors)


@pytest.mark.parametrize("prefix", ["", "transformer.", "base_model.model.model.", "odd-name.x."])
def test_a_prefix_is_learned_from_the_names(prefix):
    record = content(made(0), made(0, prefix=prefix))
    assert record.relation == "identical"
    assert record.unpaired_a.tensors == record.unpaired_b.tensors == 0
    assert {tensor.by for tensor in record.tensors} == {"prefix"}


def test_prefixes_of_many_lengths():
    assert common_prefixes(["a.b.w", "a.c.w"], ["b.w", "c.w"]) == ("a.", "")
    assert common_prefixes(["w"], ["w"]) == ("", "")
    assert common_prefixes(["x"], ["y"]) == ("", "")


def test_a_tied_head_that_one_side_leaves_out():
    whole = made(0)
    whole["lm_head.weight"] = whole["model.embed_tokens.weight"]
    less = {name: tensor for name, tensor in whole.items() if name != "lm_head.weight"}
    record = content(whole, less)
    assert record.relation == "identical"
    assert [t.by for t in record.tensors if t.name_a == "lm_head.weight"] == ["tied"]


def test_rows_appended_to_the_vocabulary():
    more = made(0)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        more[name] = torch.cat((more[name], torch.randn(8, D)))
    record = content(made(0), more)
    assert record.relation == "shares_parts"
    assert any("B has 8 more" in line for line in record.evidence)
    assert any("A has 8 more" in line for line in record.mirrored().evidence)


@pytest.mark.parametrize(
    "order", [[0, 1, 2, 3, 2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3, 5, 4], [5, 4, 3, 2, 1, 0]]
)
def test_layers_that_were_moved_are_found(order):
    record = content(made(0), with_layers(made(0), order))
    assert record.relation == "layers_changed"
    assert [match.like for match in record.layers[0].of_b] == order
    assert all(match.equal for match in record.layers[0].of_b)
    moved = [tensor for tensor in record.tensors if tensor.part == "block"]
    assert {tensor.content for tensor in moved} == {"identical"}


def test_layers_that_were_moved_and_then_trained():
    order = [0, 1, 2, 3, 2, 3, 4, 5]
    record = content(made(0), tuned(with_layers(made(0), order), 0.3))
    assert record.relation == "layers_changed"
    found = [match.like for match in record.layers[0].of_b]
    assert found == order


def test_strangers_of_other_depth_have_no_map():
    record = content(made(0), made(1, layers=8))
    assert all(match.like is None for match in record.layers[0].of_b)
    assert record.relation == "unrelated"


def test_fine_tuned_is_related():
    record = content(made(0), tuned(made(0), 0.05))
    assert record.relation == "related"
    for part in record.parts:
        assert part.relative_a == pytest.approx(0.05, rel=0.4) or part.part == "norm"


def test_shared_embedding_alone():
    a, b = made(0), made(1)
    b["model.embed_tokens.weight"] = a["model.embed_tokens.weight"]
    assert content(a, b).relation == "shares_parts"


def test_other_architectures():
    other = {"conv1.weight": torch.randn(16, 3, 3, 3), "fc.weight": torch.randn(10, 16)}
    record = content(made(0), other)
    assert record.relation == "different_architectures"
    assert record.unpaired_b.tensors == 2


def test_scaled_transposed_and_permuted_copies():
    generator = torch.Generator().manual_seed(3)
    a = {"fc.weight": torch.randn(80, 60, generator=generator)}
    record = content(a, {"fc.weight": -3 * a["fc.weight"]})
    assert record.tensors[0].difference.scale_b == pytest.approx(-3)
    record = content(a, {"fc.weight": a["fc.weight"].T.contiguous()})
    assert record.tensors[0].difference.transposed
    assert record.tensors[0].content == "rounding"
    shuffled = a["fc.weight"][torch.randperm(80, generator=generator)]
    record = content(a, {"fc.weight": shuffled})
    assert record.tensors[0].difference.rows_permuted


class TestMixtures:
    def parents(self):
        base = made(0)
        return base, tuned(base, 0.1, seed=1), tuned(base, 0.1, seed=2)

    def compared(self, base, merged, parents):
        return compared_content(
            from_state_dict(base), from_state_dict(merged),
            parents=[from_state_dict(parent) for parent in parents],
        )  # fmt: skip

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_task_arithmetic(self, dtype):
        base, one, two = self.parents()
        merged = {
            n: (base[n] + 0.3 * (one[n] - base[n]) + 0.8 * (two[n] - base[n])).to(dtype)
            for n in base
        }
        record = self.compared(base, merged, (one, two))
        assert record.relation == "merge"
        fit = record.mixture_b.with_base
        assert fit.agree
        assert fit.coefficients == pytest.approx((0.3, 0.8), abs=0.01)
        assert fit.total == pytest.approx(1.1, abs=0.01)

    def test_mean_without_base(self):
        base, one, two = self.parents()
        merged = {n: (0.25 * one[n] + 0.75 * two[n]) for n in base}
        record = self.compared(made(9), merged, (one, two))
        assert record.relation == "merge"
        assert record.mixture_b.without_base.coefficients == pytest.approx((0.25, 0.75), abs=1e-3)
        assert not record.mixture_a.linear

    def test_spherical_interpolation(self):
        one, two = made(1), made(2)
        merged = {}
        for name in one:
            u, v = one[name].double().flatten(), two[name].double().flatten()
            angle = torch.acos(u @ v / u.norm() / v.norm())
            mixed = torch.sin(0.4 * angle) * u + torch.sin(0.6 * angle) * v
            merged[name] = (mixed / torch.sin(angle)).reshape(one[name].shape).float()
        fit = self.compared(made(9), merged, (one, two)).mixture_b.without_base
        assert fit.each
        assert not fit.agree
        assert fit.slerp

    def test_ties_and_dare_are_not_linear(self):
        base, one, two = self.parents()
        generator = torch.Generator().manual_seed(5)
        dare = {
            n: base[n] + (torch.rand(base[n].shape, generator=generator) < 0.3) / 0.3
            * (one[n] - base[n]) for n in base
        }  # fmt: skip
        record = self.compared(base, dare, (one, two))
        mixture = record.mixture_b
        assert not mixture.linear
        assert record.relation == "related"
        pattern = mixture.patterns[0]
        assert pattern.equal_to_base == pytest.approx(0.7, abs=0.02)
        assert pattern.multiple == pytest.approx(1 / 0.3, abs=0.05)
        assert pattern.scaled > 0.9

    def test_an_unrelated_parent_has_no_share(self):
        base, one, _ = self.parents()
        record = self.compared(base, tuned(base, 0.1, seed=7), (one, made(3)))
        assert not record.mixture_b.linear
        assert record.relation == "related"


class TestHostile:
    @pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e38, 0.0, 1e-45])
    def test_values_that_are_no_weights(self, value):
        bad = made(0)
        bad["lm_head.weight"] = torch.full((WORDS, D), value)
        bad["model.norm.weight"] = torch.full((D,), value)
        content(made(0), bad)
        content(bad, bad)

    def test_double_overflow(self):
        a = {"fc.weight": torch.full((8, 8), 1e300, dtype=torch.float64)}
        b = {"fc.weight": torch.full((8, 8), -1e300, dtype=torch.float64)}
        assert content(a, b).relation == "unclear"

    def test_shapes_and_types(self):
        a = {"x": torch.zeros(()), "e": torch.zeros(0, 4), "i": torch.arange(9),
             "c": torch.zeros(4, dtype=torch.complex64), "s": torch.ones(3, 5)}  # fmt: skip
        b = {"x": torch.ones(()), "e": torch.zeros(0, 4), "i": torch.arange(9) + 1,
             "c": torch.ones(4, dtype=torch.complex64), "s": torch.ones(5, 7)}  # fmt: skip
        record = content(a, b)
        assert {tensor.name_a: tensor.content for tensor in record.tensors}["s"] == "reshaped"

    def test_parents(self):
        parents = [from_state_dict(made(0))] * 9
        with pytest.raises(InputError):
            compared_content(parents[0], parents[1], parents=parents)
        record = compared_content(parents[0], parents[1], parents=parents[:2])
        assert record.relation == "identical"

    def test_workers_and_progress_change_nothing(self):
        a, b = made(0), tuned(made(0), 0.1)
        seen = []
        one = compared_content(from_state_dict(a), from_state_dict(b))
        many = compared_content(
            from_state_dict(a), from_state_dict(b), workers=3,
            progress=lambda done, total, _name: seen.append((done, total)),
        )  # fmt: skip
        assert one == many
        assert seen[-1] == (len(a), len(a))


@pytest.mark.parametrize(
    ("order", "pairs"), [([0, 1, 1, 2, 3], "38 pairs"), ([0, 1, 2, 3, 0], "38 pairs")]
)
def test_a_layer_that_is_there_twice_is_counted_in_pairs(order, pairs):
    base = made(0, layers=4)
    copy = with_layers(base, order)
    record = content(base, copy)
    line = next(line for line in record.evidence if line.endswith("equal in every bit"))
    there = len({tensor.name_a for tensor in record.tensors})
    assert line.startswith(f"{pairs}, of {there} tensors of A and {len(copy)} tensors of B, since")
    assert there + record.unpaired_a.tensors == len(base) == 31
