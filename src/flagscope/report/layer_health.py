"""Findings on layers that hold the same weights, and on matrices of another scale."""

from __future__ import annotations

from collections.abc import Iterator

from flagscope.records import EqualLayers, Finding, Health, ScaleOutlier
from flagscope.report.faulty_blocks import index_words
from flagscope.report.health_finding import health_finding
from flagscope.report.wording import counted, joined, number, ranges
from flagscope.shortening import shortened

_SHOWN = 6


def equal_layer_findings(health: Health) -> Iterator[Finding]:
    """Finding on layers that are copies of others."""
    groups = health.equal_layers
    if not groups:
        return
    if health.equal_layer_groups == 1:
        one = groups[0]
        plain = f"Layers {_numbers(one)} hold the same weights."
        of = f" of {shortened(one.stack)!r}" if one.stack else ""
        text = f"Layers {_numbers(one)}{of} hold the same weights in all {one.tensors:,} tensors."
    else:
        first = f"layers {_numbers(groups[0])}"
        plain = (
            f"{health.equal_layer_groups:,} groups of layers hold the same weights, such as "
            f"{first}."
        )
        text = f"{plain[:-1]}: equal in every tensor."
    yield health_finding(
        "duplicate-layers", plain, text,
        tuple(
            f"{shortened(one.stack)}: layers {_numbers(one)} of {counted(one.present, 'layer')}, "
            f"{counted(one.tensors, 'tensor')} each"
            for one in groups[:_SHOWN]
        ),
        means="The layers compute the same function of what they read. They were found equal by "
        "hashes of all their rows and columns.",
        next_step="See whether the model was made deeper by repeating layers, or a conversion "
        "wrote one layer twice.",
        not_meaning="A network may use one layer several times on purpose, and its file may store "
        "it so.",
    )  # fmt: skip


def _numbers(one: EqualLayers) -> str:
    if len(one.layers) == 2:
        return f"{one.layers[0]} and {one.layers[1]}"
    return ranges(one.layers)


def scale_findings(health: Health) -> Iterator[Finding]:
    """Findings on matrices of another scale than in the other layers: remarks."""
    for one in health.scale_outliers:
        text = _scale_text(one)
        yield health_finding(
            "scale-outliers", text, text, (), certain=False,
            means="Root mean squares of the entries are compared with their median over the "
            "layers.",
            next_step="See whether a scale was applied twice, or left out, when the model was "
            "converted, merged or dequantised.",
            not_meaning="It does not mean an error: another matrix or a norm may undo the scale.",
        )  # fmt: skip


def _scale_text(one: ScaleOutlier) -> str:
    where = index_words("layer", one.layers)
    names = joined([shortened(name) for name in one.names[:2]])
    if len(one.names) > 1:
        names = f"{counted(one.tensors, 'matrix', 'matrices')} such as {names}"
    size = "larger" if one.larger else "smaller"
    verb = "is" if one.tensors == 1 else "are"
    factor = number(float(f"{one.factor:.1e}"))
    return f"In {where}, {names} {verb} {size} than in the other layers by a factor of {factor}."
