"""Records of a comparison of two sets of weights."""

from flagscope.records.comparison.adapter_pairs import AdapterPairRecord, ModulePair
from flagscope.records.comparison.adapters import (
    FAULT_CODES,
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
    PairChange,
    ProductChange,
)
from flagscope.records.comparison.comparison import (
    COMPARE_SCHEMA,
    COMPARISON_PARTS,
    KEPT_SINGULAR_VALUES,
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
from flagscope.records.comparison.content import ContentRecord
from flagscope.records.comparison.content_parts import Mixture, MixtureFit, TensorContent
from flagscope.records.comparison.letters import SIDE_A, SIDE_B, lettered, lettered_text

__all__ = [
    "COMPARE_SCHEMA",
    "COMPARISON_PARTS",
    "FAULT_CODES",
    "KEPT_SINGULAR_VALUES",
    "SIDE_A",
    "SIDE_B",
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
    "Mixture",
    "MixtureFit",
    "ModulePair",
    "ModuleReplay",
    "PairChange",
    "ProductChange",
    "ReplayOutcome",
    "ReplayRecord",
    "Side",
    "TensorContent",
    "Verdict",
    "VerdictCode",
    "lettered",
    "lettered_text",
]
