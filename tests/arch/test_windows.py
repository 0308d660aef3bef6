"""Maps that take up a part of an axis: against plain slicing, reading no more than that part."""

import pytest
import torch

from flagscope.arch.layout import part_of_axis
from flagscope.arch.maps import solved_map
from flagscope.errors import ArchitectureError

H, G, K, D = 4, 2, 3, 5
FUSED = torch.arange((H + 2 * G) * K * D).reshape(-1, D).double()
GROUPED = torch.arange(G * (H // G + 2) * K * D).reshape(-1, D).double()


def behind(start, stop, layout="(s k) d", batch="s", stored=FUSED, **more):
    return solved_map(
        role="k", tensor="w", shape=tuple(stored.shape), layout=layout, out="k", inp="d",
        batch=batch, known={"h": H, "g": G, "k": K}, window={"s": f"{start}:{stop}"}, bias="b",
        **more,
    )  # fmt: skip


def grouped(start, stop):
    return behind(start, stop, layout="(g s k) d", batch="g s", stored=GROUPED)


def rows(stored, first):
    return stored[first : first + K]


# map, stored, first row of each member, its text for the last one, rows that are read
CASES = {
    "queries": (behind("", "h"), FUSED, [0, 3, 6, 9], "[9:12, :]", slice(0, 12)),
    "keys": (behind("h", "h+g"), FUSED, [12, 15], "[15:18, :]", slice(12, 18)),
    "values": (behind("s-g", ""), FUSED, [18, 21], "[21:24, :]", slice(18, 24)),
    "grouped queries": (grouped("", "s-2"), GROUPED, [0, 3, 12, 15], "[15:18, :]", None),
    "grouped keys": (grouped("s-2", "s-1"), GROUPED, [6, 18], "[18:21, :]", None),
}


@pytest.mark.parametrize("case", CASES)
def test_views_are_the_plain_slices(case):
    one, stored, first, text, part = CASES[case]
    expected = torch.stack([rows(stored, at) for at in first])
    assert one.count == len(first)
    assert one.outputs == K
    assert torch.equal(one.write_matrices(stored), expected)
    assert torch.equal(one.read_matrices(stored), expected)
    assert torch.equal(one.bias_vectors(stored[:, 0]), expected[..., 0])
    assert one.slice_text(one.count - 1) == text
    assert one.index() == (None if part is None else (part, slice(None)))
    if part is not None:
        assert torch.equal(one.write_matrices(stored[part]), expected)


@pytest.mark.parametrize("case", CASES)
def test_replace_touches_its_own_slice_alone(case):
    one, stored, first, *_ = CASES[case]
    new = -one.write_matrices(stored) - 1
    changed = one.replace(stored, new)
    assert torch.equal(one.write_matrices(changed), new)
    assert int((changed != stored).sum()) == len(first) * K * D
    bias = one.replace_bias(stored[:, 0], new[..., 0])
    assert int((bias != stored[:, 0]).sum()) == len(first) * K


def test_a_part_of_the_output_of_each_head():
    """As in latent attention: the first dimensions of a head carry keys, the others values."""
    stored = torch.arange(4 * 5 * 2).reshape(20, 2).double()
    key, value = (
        solved_map(
            role="k", tensor="w", shape=(20, 2), layout="(h t) r", out="t", inp="r", batch="h",
            known={"h": 4, "n": 3}, window={"t": part},
        )
        for part in (":n", "n:")
    )  # fmt: skip
    assert (key.outputs, value.outputs) == (3, 2)
    assert torch.equal(key.write_matrices(stored)[1], stored[5:8])
    assert torch.equal(value.write_matrices(stored)[1], stored[8:10])
    assert (key.slice_text(1), value.slice_text(1)) == ("[5:8, :]", "[8:10, :]")


def test_a_part_behind_a_selected_map():
    stored = torch.arange(12 * 2).reshape(12, 2).double()
    one = solved_map(
        role="linear", tensor="w", shape=(12, 2), layout="(two o) i", out="o", inp="i",
        select={"two": 1}, window={"o": "2:5"},
    )  # fmt: skip
    assert one.index() == (slice(8, 11), slice(None))
    assert torch.equal(one.write_matrices(stored)[0], stored[8:11])
    assert torch.equal(one.write_matrices(stored[8:11])[0], stored[8:11])
    assert one.slice_text(0) == "[8:11, :]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h", "no part of axis"), ("5:2", "no part of axis"), (":13", "no part of axis"),
        ("x:", "size of axis 'x' is not known"), ("h*2:", "no sum of axis sizes"),
    ],
)  # fmt: skip
def test_mistaken_parts_are_named(text, message):
    with pytest.raises(ArchitectureError, match=message) as raised:
        part_of_axis(text, "s", {"h": 8, "s": 12})
    assert raised.value.hint


def test_a_window_beyond_its_axis():
    with pytest.raises(ArchitectureError, match="no part of axis"):
        behind("h", "h+s")
