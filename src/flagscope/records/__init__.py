"""Results of a scan: frozen records without tensors, which are also the published JSON schema.

Nulls (`None`) stand where a number is undefined; `status` then says why. No record holds a tensor,
and none holds NaN or infinity.
"""

from flagscope.records.coverage import Coverage, LeftOut, NotFinite, WithoutNumbers
from flagscope.records.finding import FINDING_CODES, Finding, FindingCode, FindingItem, Severity
from flagscope.records.heads import HeadCluster, HeadPair, HeadRecord, SharedDirection
from flagscope.records.health import (
    FaultyBlock,
    FaultyTensor,
    Health,
    Missing,
    NotLookedAt,
    UnitCheck,
    UnitFaults,
    WeightCheck,
    WeightFault,
)
from flagscope.records.links import EdgeRecord
from flagscope.records.literals import (
    FREEDOMS,
    HEAD_SPACES,
    PARTS,
    Attention,
    Depth,
    FoldNorms,
    Freedom,
    HeadSpace,
    Label,
    PairKind,
    Part,
    Precision,
    ReadSpace,
    TestKind,
    What,
)
from flagscope.records.pairs import (
    ArraySummary,
    Balanced,
    Functional,
    Incidence,
    MapReference,
    NullValues,
    OverlapTest,
    PairRecord,
    Values,
)
from flagscope.records.record import Record, with_texts
from flagscope.records.scan import SCHEMA, FailureRecord, RunRecord, ScanResult
from flagscope.records.settings import ScanSettings

__all__ = [
    "FINDING_CODES",
    "FREEDOMS",
    "HEAD_SPACES",
    "PARTS",
    "SCHEMA",
    "ArraySummary",
    "Attention",
    "Balanced",
    "Coverage",
    "Depth",
    "EdgeRecord",
    "FailureRecord",
    "FaultyBlock",
    "FaultyTensor",
    "Finding",
    "FindingCode",
    "FindingItem",
    "FoldNorms",
    "Freedom",
    "Functional",
    "HeadCluster",
    "HeadPair",
    "HeadRecord",
    "HeadSpace",
    "Health",
    "Incidence",
    "Label",
    "LeftOut",
    "MapReference",
    "Missing",
    "NotFinite",
    "NotLookedAt",
    "NullValues",
    "OverlapTest",
    "PairKind",
    "PairRecord",
    "Part",
    "Precision",
    "ReadSpace",
    "Record",
    "RunRecord",
    "ScanResult",
    "ScanSettings",
    "Severity",
    "SharedDirection",
    "TestKind",
    "UnitCheck",
    "UnitFaults",
    "Values",
    "WeightCheck",
    "WeightFault",
    "What",
    "WithoutNumbers",
    "with_texts",
]
