"""Infers a family for a model that no family file describes, from names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flagscope.arch.config_values import Known, known_sizes
from flagscope.arch.family_match import Choice, Instance
from flagscope.arch.graph import HeadGroup, PairGroup
from flagscope.arch.notes import Notes
from flagscope.arch.reading import SIZES, WIDTH, Reading, read_names
from flagscope.arch.rule_context import Shapes
from flagscope.arch.rules import ActivationRule, load_families, read_family
from flagscope.arch.stacks import StackBuilder

DOUBTED = (
    "pairs were inferred from common tensor names; what lies between their maps is unknown, so no "
    "freedom is claimed"
)
SHARED = (
    "no freedom is claimed between maps outside of one nn.Sequential whose width occurs elsewhere: "
    "a sum or a second reader may hold the same neurons"
)


@dataclass(frozen=True)
class Inferred:
    """Pairs and heads inferred from names and shapes."""

    pairs: tuple[PairGroup, ...]
    heads: tuple[HeadGroup, ...]


def inferred_maps(
    shapes: Shapes,
    notes: Notes,
    *,
    known: Mapping[str, Known],
    config: Mapping[str, Any] | None,
) -> Inferred:
    """Pairs and heads inferred from names and shapes, without heads in separate tensors.

    Parameters
    ----------
    known
        Sizes by axis.
    """
    choice, _ = inferred(shapes, config, notes)
    if choice is None:
        return Inferred((), ())
    builder = StackBuilder(shapes, config, choice, known, notes, None, residual=False)
    pairs, heads = builder.build()
    return Inferred(tuple(pairs), tuple(heads))


def inferred(
    shapes: Shapes,
    config: Mapping[str, Any] | None,
    notes: Notes,
    *,
    heads: int | None = None,
) -> tuple[Choice | None, Reading]:
    """The family that was read, or None, and the reading.

    A model of sequences in known order alone is trusted if its config names the activation between
    them; it counts as the family of plain MLPs if all of its maps are linear.
    """
    sizes = known_sizes({**SIZES, "d": WIDTH}, config, heads, lenient=True)
    reading = read_names(shapes, {axis: size.value for axis, size in sizes.items()})
    for text, module in reading.notes:
        notes.add(text, module)
    for tensor, reason in reading.left.items():
        notes.add(f"in no pair: {reason}", tensor.removesuffix(".weight"))
    for border in reading.borders:
        notes.add("no pair is listed across these borders of modules, since it is not known what "
                  "stands there", border)  # fmt: skip
    if reading.certain:
        for pair in reading.shared:
            notes.add(SHARED, pair)
    content = dict(reading.content)
    if not content.get("stacks") and not content.get("sequences"):
        return None, reading
    if reading.certain:
        linear = all(len(table["layout"].split()) == 2 for sequence in content["sequences"]
                     for table in sequence["maps"] if "(" not in table["layout"])  # fmt: skip
        plain = load_families()["mlp"]
        rule = plain.chain.activation if plain.chain else ActivationRule()
        activation = {"config": list(rule.config), "default": "unknown"}
        content["name"] = "mlp" if linear else "cnn"
        content["sequences"] = [
            sequence | {"activation": activation} for sequence in content["sequences"]
        ]
    else:
        content["name"] = "unknown"
    family = read_family(content, "the reading of tensor names")
    instances = tuple(
        Instance(rule, "", rule.paths[0], numbers)
        for rule, numbers in zip(family.stacks, reading.numbers, strict=True)
    )
    return Choice(family, instances, reading.certain, config), reading
