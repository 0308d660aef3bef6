"""The record of one pair, made of what names it and what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flagscope.arch import Member, PairGroup, Side
from flagscope.diagnose.pair_measurement import PairMeasurement
from flagscope.records import MapReference, PairRecord


@dataclass(frozen=True)
class PairIdentity:
    """Which pair it is.

    Attributes
    ----------
    group, member
        Where it lies in the network.
    d
        Dimension of the shared space.
    folded
        Names of norms that were folded into its maps.
    repeated
        Whether values of the write and of the read map repeat, see `Matrices`.
    """

    group: PairGroup
    member: Member
    d: int
    folded: Sequence[str]
    repeated: tuple[bool, bool]


def pair_record(pair: PairIdentity, measured: PairMeasurement) -> PairRecord:
    """The record of a pair; adjusted p-values are left for the scan."""
    group, member = pair.group, pair.member
    ranks, position, tests = measured.ranks, measured.position, measured.tests
    log10_p = tests.overlap_log10_p
    return PairRecord(
        name=member.name, kind=group.kind, between=group.between, stack=group.stack,
        attention=group.attention, layer=group.layer, head=member.head, kv_head=member.kv_head,
        expert=member.expert,
        write=_reference(group.write, member.write_index, pair.repeated[0]),
        read=_reference(group.read, member.read_index, pair.repeated[1]),
        d=pair.d, freedom=group.freedom, folded=list(pair.folded),
        rank_write=ranks.write, rank_read=ranks.read,
        effective_rank_write=ranks.effective_write, effective_rank_read=ranks.effective_read,
        participation_write=ranks.participation_write, participation_read=ranks.participation_read,
        dominant=measured.dominant, depth=measured.depth,
        commutator_ratio_error=measured.commutator_error,
        commutation_defect_error=measured.defect_error,
        **measured.grams.fields(),
        commutator_p=tests.guarded_commutator_p, gram_correlation_p=tests.guarded_correlation_p,
        overlap_ratio=position.overlap_ratio, overlap_z=position.overlap_z,
        p=None if log10_p is None else 10.0**log10_p, log10_p=log10_p,
        p_adjusted=None, p_adjusted_dependent=None, overlap_test=tests.overlap_test,
        intersection_exact=position.exact, intersection_beyond_chance=position.beyond_chance,
        intersection_status=position.status, flag_defect=position.flag_defect,
        kernel_intersection=measured.kernel_intersection,
        cosines=position.cosines, cosines_forced=position.cosines_forced,
        profile=measured.profile, incidence=measured.incidence,
        functional=measured.functional, balanced=measured.balanced, null=measured.null,
        status=measured.status,
    )  # fmt: skip


def _reference(side: Side, index: int, repeated: bool) -> MapReference:
    return MapReference(
        tensor=side.map.tensor,
        slice=side.map.slice_text(index),
        transposed=side.transposed,
        repeated=repeated,
    )


def pair_fault(group: PairGroup, write: str | None, read: str | None) -> str | None:
    """The fault of the write map or of the read map, in words."""
    for which, side, fault in (("write", group.write, write), ("read", group.read, read)):
        if fault is not None:
            return f"{which} map {side.map.tensor} is {fault}"
    return None
