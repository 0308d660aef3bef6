"""Records of a comparison of two sets of weights."""

from flagscope.records.comparison.adapter_pairs import AdapterPairRecord, ModulePair
from flagscope.records.comparison.adapters import (
    CoverageRecord,
    Fault,
    ModuleReplay,
    ReplayOutcome,
    ReplayRecord,
)
from flagscope.records.comparison.change import (
    ChangeRecord,
    LayerChange,
    MapChange,
    ProductChange,
)
from flagscope.records.comparison.comparison import (
    COMPARE_SCHEMA,
    COMPARISON_PARTS,
    VERDICT_CODES,
    Comparison,
    ComparisonFinding,
    ComparisonPart,
    ComparisonRun,
    HeadSides,
    Side,
    Verdict,
    VerdictCode,
)
from flagscope.records.comparison.content import ContentRecord, TensorContent

__all__ = [
    "COMPARE_SCHEMA",
    "COMPARISON_PARTS",
    "VERDICT_CODES",
    "AdapterPairRecord",
    "ChangeRecord",
    "Comparison",
    "ComparisonFinding",
    "ComparisonPart",
    "ComparisonRun",
    "ContentRecord",
    "CoverageRecord",
    "Fault",
    "HeadSides",
    "LayerChange",
    "MapChange",
    "ModulePair",
    "ModuleReplay",
    "ProductChange",
    "ReplayOutcome",
    "ReplayRecord",
    "Side",
    "TensorContent",
    "Verdict",
    "VerdictCode",
]
