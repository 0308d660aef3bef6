"""Results of a scan: frozen records without tensors, which are also the published JSON schema.

Nulls (`None`) stand where a number is undefined; `status` then says why. No record holds a tensor,
and none holds NaN or infinity.
"""

from flagscope.records.coverage import Coverage, LeftOut, NotFinite, WithoutNumbers
from flagscope.records.finding import FINDING_CODES, Finding, FindingCode, Severity
from flagscope.records.head_overlaps import (
    HEADS_SCHEMA,
    ComparedHead,
    HeadOverlap,
    HeadOverlapsRecord,
    HeadSpaceRecord,
)
from flagscope.records.heads import HeadCluster, HeadPair, HeadRecord, SharedDirection
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
    StreamBasis,
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
    "HEADS_SCHEMA",
    "HEAD_SPACES",
    "PARTS",
    "SCHEMA",
    "ArraySummary",
    "Attention",
    "Balanced",
    "ComparedHead",
    "Coverage",
    "Depth",
    "EdgeRecord",
    "FailureRecord",
    "Finding",
    "FindingCode",
    "FoldNorms",
    "Freedom",
    "Functional",
    "HeadCluster",
    "HeadOverlap",
    "HeadOverlapsRecord",
    "HeadPair",
    "HeadRecord",
    "HeadSpace",
    "HeadSpaceRecord",
    "Incidence",
    "Label",
    "LeftOut",
    "MapReference",
    "NotFinite",
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
    "StreamBasis",
    "TestKind",
    "Values",
    "What",
    "WithoutNumbers",
    "with_texts",
]
