"""Pairs and heads of known answers as groups of a network, and their records."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from torch import Tensor

from flagscope.arch import HeadGroup, LinearMap, Member, PairGroup, Rotary, Side
from flagscope.diagnose import head_record, pair_records
from flagscope.geometry import RankRule
from flagscope.records import HeadRecord, PairRecord
from geometry.planted import matrices


def stored_map(name: str, count: int, rows: int, columns: int) -> LinearMap:
    return LinearMap(
        role="linear", tensor=name, shape=(count * rows, columns), layout="(n o) i", out="o",
        inp="i", sizes={"n": count, "o": rows, "i": columns}, batch="n", count=count,
    )  # fmt: skip


def pair_group(
    w1: Tensor,
    w2: Tensor,
    *,
    freedom: str = "none",
    rotary: Rotary | None = None,
    members: Sequence[tuple[int, int]] | None = None,
) -> PairGroup:
    """The group of these write maps (n, d, m1) and read maps (k, m2, d)."""
    of = members or [(i, i) for i in range(len(w1))]
    return PairGroup(
        name="planted", kind="mlp", between="linear", stack="main", attention=None, layer=0,
        freedom=freedom, d=w1.shape[1],
        write=Side(stored_map("write", *w1.shape)), read=Side(stored_map("read", *w2.shape)),
        rotary=rotary,
        members=tuple(
            Member(f"pair.{i}", write_index=a, read_index=b) for i, (a, b) in enumerate(of)
        ),
    )  # fmt: skip


def records(
    w1: Tensor, w2: Tensor, *, rank: str = "participation", delta: float = 0.0, **group
) -> list[PairRecord]:
    """Records of pairs of float64 (or float32) maps whose storage error is bounded by delta."""
    one = pair_group(w1, w2, **group)
    return pair_records(
        one,
        matrices(w1, delta).take([m.write_index for m in one.members]),
        matrices(w2, delta).take([m.read_index for m in one.members]),
        rule=RankRule.parse(rank),
    )


def record(w1: Tensor, w2: Tensor, **options) -> PairRecord:
    return records(w1[None], w2[None], **options)[0]


def heads(maps: Tensor, *, delta: float = 0.0) -> HeadRecord:
    """Record of heads whose spaces are the row spaces of these maps (H, r, d)."""
    count, r, d = maps.shape
    group = HeadGroup(
        stack="main", attention="self", layer=0, space="q",
        map=stored_map("heads", count, r, d), count=count, rank=min(r, d), d=d,
    )  # fmt: skip
    return head_record(group, matrices(maps, delta))


def assert_record(found: PairRecord, exact: PairRecord, *, within: float) -> None:
    """Numbers to `within` (z and p to 1e-3), counts and words exactly; the lists are left out."""
    for name, value in exact:
        mine = getattr(found, name)
        if isinstance(value, float):
            loose = name.endswith(("_z", "p"))
            assert mine == pytest.approx(value, rel=1e-6, abs=1e-3 if loose else within), name
        elif isinstance(value, (int, str)):
            assert mine == value, name
    one, two = found.overlap_test, exact.overlap_test
    assert (one is None) == (two is None)
    if one is not None and two is not None:
        assert (one.rank_write, one.rank_read) == (two.rank_write, two.rank_read)
        for name in ("overlap_ratio", "log10_p", "log10_p_profile", "dominant_log10_p"):
            a, b = getattr(one, name), getattr(two, name)
            assert a == (b if b is None else pytest.approx(b, rel=1e-4, abs=1e-3)), name
