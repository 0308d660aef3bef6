"""Layouts and maps: views against plain slicing, replacing as their inverse, errors."""

import numpy as np
import pytest
import torch

from flagscope.arch import LinearMap, Member, PairGroup, Rotary, Side
from flagscope.arch.layout import LayoutMismatchError, axis_sizes, parse_layout
from flagscope.arch.maps import solved_map
from flagscope.errors import ArchitectureError, InputError

H, K, D = 3, 2, 5


def a_map(layout, shape, *, out="k", inp="d", batch="h", select=None, known=None, bias="b"):
    return solved_map(
        role="q", tensor="w", shape=shape, layout=layout, out=out, inp=inp, batch=batch,
        select=select, known=known or {"h": H}, bias=bias,
    )  # fmt: skip


# layout, shape, select, plain slices of head h as (out, in), the slice's text for head 1,
# and the part that is enough to read
CASES = {
    "split": ("(h k) d", (6, 5), {}, lambda w, h: w[2 * h : 2 * h + 2], "[2:4, :]", None),
    "interleaved": (
        "(h three k) d", (18, 5), {"three": 2},
        lambda w, h: w[6 * h + 4 : 6 * h + 6], "[10:12, :]", None,
    ),
    "fused, transposed": (
        "d (three h k)", (5, 18), {"three": 1},
        lambda w, h: w[:, 6 + 2 * h : 8 + 2 * h].T, "[:, 8:10]", (slice(None), slice(6, 12)),
    ),
    "strided": ("(k h) d", (6, 5), {}, lambda w, h: w[h::3], "[1:5:3, :]", None),
    "head axis": ("h k d", (3, 2, 5), {}, lambda w, h: w[h], "[1:2, :, :]", None),
    "two blocks": (
        "(two k h three) d", (36, 5), {"three": 0},
        lambda w, h: w.reshape(2, 2, 3, 3, 5)[1, :, h, 0], None, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_views_are_the_plain_slices(case, dtype):
    layout, shape, select, plain, text, part = CASES[case]
    if case == "two blocks":
        select = {"two": 1, "three": 0}
        one = a_map(layout, shape, select=select)
    else:
        one = a_map(layout, shape, select=select)
    stored = torch.arange(np.prod(shape)).reshape(shape).to(dtype)
    expected = torch.stack([plain(stored, h) for h in range(H)])
    assert torch.equal(one.write_matrices(stored), expected)
    assert torch.equal(one.read_matrices(stored), expected)
    assert one.index() == part or case == "two blocks"
    if text is not None:
        assert one.slice_text(1) == text
    cut = one.index()
    if cut is not None:
        assert torch.equal(one.write_matrices(stored[cut]), expected)
        assert torch.equal(one.replace(stored[cut], expected + 1), _plus(one, stored)[cut])
    assert torch.equal(one.write_matrices(_plus(one, stored)), expected + 1)


def _plus(one, stored):
    return one.replace(stored, one.write_matrices(stored) + 1)


@pytest.mark.parametrize("case", CASES)
def test_replace_touches_its_own_slice_alone(case):
    layout, shape, select, *_ = CASES[case]
    select = {"two": 1, "three": 0} if case == "two blocks" else select
    one = a_map(layout, shape, select=select)
    stored = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kept = stored.clone()
    assert torch.equal(one.replace(stored, one.write_matrices(stored)), stored)
    marked = one.replace(torch.zeros(shape), torch.ones(H, K, D))
    assert int(marked.sum()) == H * K * D
    assert torch.equal(stored, kept)


def test_convolutions_keep_output_or_input_channels():
    one = a_map("o i y x", (4, 3, 2, 2), out="o", inp="i", batch=None, known={})
    stored = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one.write_matrices(stored)[0], stored.reshape(4, 12))
    assert torch.equal(one.read_matrices(stored)[0], stored.transpose(1, 0).reshape(3, 16).T)
    for view, matrices in (("write", one.write_matrices), ("read", one.read_matrices)):
        assert torch.equal(one.replace(stored * 0, matrices(stored), view=view), stored)
    assert one.slice_text(0) == "[:]"
    # the Gram over input channels is the sum over outputs and kernel
    gram = one.read_matrices(stored)[0].T @ one.read_matrices(stored)[0]
    assert torch.allclose(gram, torch.einsum("oiyx,ojyx->ij", stored, stored), atol=1e-6)


def test_biases_follow_the_output():
    fused = a_map("d (three h k)", (5, 18), select={"three": 2})
    assert fused.bias_layout == "(three h k)"
    bias = torch.arange(18)
    assert fused.bias_vectors(bias).tolist() == [[12, 13], [14, 15], [16, 17]]
    assert torch.equal(fused.replace_bias(bias, fused.bias_vectors(bias)), bias)
    output = a_map("d (h k)", (5, 6), out="d", inp="k")
    assert output.bias_layout == "d"
    assert output.bias_vectors(torch.arange(5)).shape == (1, 5)


def test_experts_are_a_batch():
    up = a_map("e d (f two)", (4, 5, 12), out="f", inp="d", batch="e", select={"two": 0})
    stored = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(2))
    assert torch.equal(up.write_matrices(stored), stored[..., ::2].transpose(1, 2))
    assert up.slice_text(3) == "[3:4, :, 0:11:2]"


def test_several_batch_axes():
    one = a_map("(g m k) d", (12, 5), batch="g m", known={"g": 2, "m": 3})
    stored = torch.arange(60).reshape(12, 5)
    assert torch.equal(one.write_matrices(stored), stored.reshape(6, 2, 5))
    assert one.slice_text(4) == "[8:10, :]"


def test_transposed_sides_and_their_inverses():
    key = a_map("(h k) d", (6, 5))
    stored = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    side, plain = Side(key, transposed=True), Side(key)
    assert torch.equal(side.read(stored), stored.reshape(3, 2, 5).transpose(1, 2))
    assert torch.equal(side.write(stored), plain.read(stored).transpose(1, 2))
    assert (side.dimension("read"), side.dimension("write")) == (2, 5)
    for one in (side, plain):
        zero = torch.zeros_like(stored)
        assert torch.equal(one.replace_read(zero, one.read(stored)), stored)
        assert torch.equal(one.replace_write(zero, one.write(stored)), stored)


def test_empty_and_single_axes():
    one = a_map("(h k) d", (0, 5), known={"h": 1})
    assert one.write_matrices(torch.zeros(0, 5)).shape == (1, 0, 5)
    single = a_map("(h k) d", (4, 5), known={"h": 1})
    assert single.slice_text(0) == "[:]"


def test_wrong_tensors_are_named():
    one = a_map("d (three h k)", (5, 18), select={"three": 0})
    with pytest.raises(InputError, match=r"'w' was expected with shape \(5, 18\) or its part"):
        one.write_matrices(torch.zeros(18, 5))
    with pytest.raises(InputError, match=r"must have shape \(3, 2, 5\)"):
        one.replace(torch.zeros(5, 18), torch.zeros(3, 5, 2))
    with pytest.raises(InputError, match="member 3 of 3"):
        one.slice_text(3)


@pytest.mark.parametrize("layout", ["", "(h k", "h k)", "((h) k)", "h h", "()", "h K", "h ..."])
def test_bad_layouts(layout):
    with pytest.raises(ArchitectureError, match="not a pattern"):
        parse_layout(layout)


def test_contradicting_sizes():
    groups = parse_layout("(h k) d")
    with pytest.raises(LayoutMismatchError, match="384 is not divisible by h = 7"):
        axis_sizes(groups, (384, 8), {"h": 7})
    with pytest.raises(LayoutMismatchError, match="is not h = 2 · k = 3"):
        axis_sizes(groups, (8, 8), {"h": 2, "k": 3})
    with pytest.raises(LayoutMismatchError, match="2 dimensions are expected"):
        axis_sizes(groups, (8,), {})
    with pytest.raises(ArchitectureError, match="leaves axis sizes open") as raised:
        a_map("(h k) d", (6, 5), known={"x": 1})
    assert "--heads" in raised.value.hint
    with pytest.raises(LayoutMismatchError):
        axis_sizes(groups, (8, 8), {"h": 0})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"out": "z"}, "distinct axes"),
        ({"inp": "k"}, "distinct axes"),
        ({"count": 2}, "count is 2"),
        ({"sizes": {"h": 3, "k": 2, "d": 4}}, "do not give its shape"),
        ({"select": {"h": 3}, "batch": None, "count": 1}, "out of range"),
    ],
)
def test_inconsistent_maps(change, reason):
    good = {
        "role": "q", "tensor": "w", "shape": (6, 5), "layout": "(h k) d", "out": "k", "inp": "d",
        "sizes": {"h": 3, "k": 2, "d": 5}, "batch": "h", "count": 3,
    }  # fmt: skip
    LinearMap(**good)
    with pytest.raises(ArchitectureError, match=reason):
        LinearMap(**{**good, **change})


def test_pairs_must_share_a_space():
    write, read = Side(a_map("(h k) d", (6, 5))), Side(a_map("d (h k)", (5, 9), out="d", inp="k"))
    given = {
        "name": "x", "kind": "ov", "between": "linear", "stack": "s", "attention": "self",
        "layer": 0, "freedom": "gl", "d": 2, "write": write,
    }  # fmt: skip
    with pytest.raises(ArchitectureError, match=r"writes 2 dimensions.*reads 3"):
        PairGroup(**given, read=read, members=())
    good = Side(a_map("d (h k)", (5, 6), out="d", inp="k"))
    with pytest.raises(ArchitectureError, match="points at map 3 of 3"):
        PairGroup(**given, read=good, members=(Member("x", write_index=3),))


def test_rotary_planes():
    assert Rotary(4, "interleaved").planes() == [(0, 1), (2, 3)]
    assert Rotary(6, "half").planes() == [(0, 3), (1, 4), (2, 5)]
    for dims in (0, 3, -2):
        with pytest.raises(ArchitectureError, match="cannot turn"):
            Rotary(dims, "half")
