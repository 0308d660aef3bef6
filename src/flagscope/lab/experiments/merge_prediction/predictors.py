"""The predictors, with the direction that each has to have: fixed before measuring."""

from __future__ import annotations

from dataclasses import dataclass

TUNINGS = ("full", "lora")


@dataclass(frozen=True)
class Predictor:
    """A number for a pair of updates that may foretell what merging them costs.

    Attributes
    ----------
    name
        Its name in the measurements.
    label
        Its name for the reader.
    claim
        The claim that it predicts.
    sign
        1 if a larger number should go with a larger loss of performance, -1 if with a smaller one.
    source
        Who expects that.
    needs_data
        Whether it takes more than weights.
    tunings
        Kinds of fine-tuning for which it is defined.
    """

    name: str
    label: str
    claim: str
    sign: int
    source: str
    needs_data: bool = False
    tunings: tuple[str, ...] = TUNINGS


PREDICTORS = (
    Predictor(
        "write_overlap",
        "overlap of write spaces",
        "Updates that write into common directions lose more by a merge.",
        1,
        "the interference of task singular vectors, Gargiulo et al., CVPR 2025",
    ),
    Predictor(
        "read_overlap",
        "overlap of read spaces",
        "Updates that read from common directions lose more by a merge.",
        1,
        "the interference of task singular vectors, Gargiulo et al., CVPR 2025",
    ),
    Predictor(
        "energy_cosine",
        "energy cosine",
        "Updates that point the same way lose less by a merge.",
        -1,
        "task arithmetic, Ilharco et al., ICLR 2023",
    ),
    Predictor(
        "interference",
        "singular task interference",
        "Updates of larger singular task interference lose more by a merge.",
        1,
        "Gargiulo et al., CVPR 2025",
    ),
    Predictor(
        "sign_conflict",
        "sign conflict",
        "Updates whose large entries differ in sign more often lose more by a merge.",
        1,
        "TIES-merging, Yadav et al., NeurIPS 2023",
    ),
    Predictor(
        "size",
        "size of the updates",
        "Larger updates lose more by a merge.",
        1,
        "the simplest baseline",
    ),
    Predictor(
        "energy_cosine_corrected",
        "energy cosine, start taken out",
        "LoRA updates that learnt the same beyond their common start lose less by a merge.",
        -1,
        "task arithmetic, Ilharco et al., ICLR 2023",
        tunings=("lora",),
    ),
    Predictor(
        "read_overlap_corrected",
        "overlap of read spaces, start taken out",
        "LoRA updates that learnt to read common directions beyond their common start lose more.",
        1,
        "the interference of task singular vectors, Gargiulo et al., CVPR 2025",
        tunings=("lora",),
    ),
    Predictor(
        "gradient_cosine",
        "gradient cosine (data)",
        "Tasks whose gradients at the base point the same way lose less by a merge.",
        -1,
        "Demystifying mergeability, arXiv 2601.22285 v6",
        needs_data=True,
    ),
    Predictor(
        "activation_overlap",
        "activation overlap (data)",
        "Tasks whose activations at the base lie in common directions lose more by a merge.",
        1,
        "Demystifying mergeability, arXiv 2601.22285 v1",
        needs_data=True,
    ),
    Predictor(
        "response",
        "response to the other's data (data)",
        "Updates that act on the other task's activations lose more by a merge.",
        1,
        "Zhang et al., ACL 2025 (OSRM)",
        needs_data=True,
    ),
    Predictor(
        "cross_loss",
        "loss of the other's task (data)",
        "The measurement can see a predictor: what an update alone does to the other's loss.",
        1,
        "a control: it measures most of the harm itself",
        needs_data=True,
    ),
)
BY_NAME = {predictor.name: predictor for predictor in PREDICTORS}
FROM_WEIGHTS = tuple(p for p in PREDICTORS if not p.needs_data)
