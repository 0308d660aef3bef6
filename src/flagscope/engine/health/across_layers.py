"""Layers that hold the same weights, and matrices of another scale than in the other layers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import median

from flagscope.engine.health.numbered import numbered
from flagscope.engine.health.tensor_health import TensorHealth
from flagscope.engine.plan.name_patterns import index_text, name_patterns
from flagscope.records import EqualLayers, ScaleOutlier

_GROUPS, _OUTLIERS, _NAMES = 12, 12, 6
# Fewest layers among which one may be said to have another scale.
_FEWEST = 4
# Decimal logarithms: of the factor from which a scale is called another one, and of the largest
# factor between the others and their median. Layers of trained models differ by less than 100.
_FAR, _NEAR = 3.0, 1.5
# Factors of adapters start at zero, and where they are hardly trained they stay small.
_ADAPTER = re.compile(r"lora_|vera_|ia3_")

Shapes = Mapping[str, tuple[int, ...]]


def equal_layers(
    shapes: Shapes, health: Mapping[str, TensorHealth], same: Mapping[str, str]
) -> tuple[list[EqualLayers], int]:
    """Groups of layers with equal tensors, at most 12, and how many groups there are.

    Parameters
    ----------
    shapes
        Shapes of the weights by name, those of one weight under several names among them.
    health
        What was looked at, by name.
    same
        The first name of a weight, by each of its further names: such layers are one layer that
        is used again, and no copies.
    """
    found: list[EqualLayers] = []
    for stack, layers in numbered(shapes).items():
        groups: dict[frozenset[tuple[str, str]], list[int]] = {}
        for number, names in layers.items():
            seen = {rest: health.get(same.get(name, name)) for rest, name in names.items()}
            # Tensors of one value, as the gains of fresh norms, are equal in every layer.
            own = any(
                name not in same and one is not None and one.constant is None
                and sum(n > 1 for n in shapes[name]) > 1
                for name, one in zip(names.values(), seen.values(), strict=True)
            )  # fmt: skip
            if own and None not in seen.values():
                key = frozenset((rest, one.digest) for rest, one in seen.items() if one is not None)
                groups.setdefault(key, []).append(number)
        found += [
            EqualLayers(
                stack=stack, layers=sorted(numbers), tensors=len(key), present=len(layers)
            )
            for key, numbers in groups.items() if len(numbers) > 1
        ]  # fmt: skip
    return found[:_GROUPS], len(found)


def scale_outliers(shapes: Shapes, health: Mapping[str, TensorHealth]) -> list[ScaleOutlier]:
    """Matrices that are far larger or smaller than the same one in all other layers."""
    odd: dict[tuple[str, tuple[int, ...], bool, int], list[tuple[str, float]]] = {}
    for stack, layers in numbered(shapes).items():
        by_rest: dict[str, dict[int, float]] = {}
        for number, names in layers.items():
            for rest, name in names.items():
                one = health.get(name)
                is_matrix = sum(n > 1 for n in shapes[name]) > 1
                if one is not None and one.rms and is_matrix and not _ADAPTER.search(name):
                    by_rest.setdefault(rest, {})[number] = math.log10(one.rms)
        for rest, scales in by_rest.items():
            middle = median(scales.values())
            far = {number for number, scale in scales.items() if abs(scale - middle) >= _FAR}
            others = [abs(scale - middle) for number, scale in scales.items() if number not in far]
            if len(scales) < _FEWEST or not far or 4 * len(far) > len(scales):
                continue
            if max(others) > _NEAR:
                continue
            for larger in (True, False):
                some = tuple(sorted(n for n in far if (scales[n] > middle) is larger))
                if some:
                    least = min(abs(scales[number] - middle) for number in some)
                    odd.setdefault((stack, some, larger, len(scales)), []).append((rest, least))
    return [
        _outlier(stack, numbers, tensors, larger=larger, present=present)
        for (stack, numbers, larger, present), tensors in odd.items()
    ][:_OUTLIERS]


def _outlier(
    stack: str, numbers: Sequence[int], tensors: Sequence[tuple[str, float]], *, larger: bool,
    present: int,
) -> ScaleOutlier:  # fmt: skip
    return ScaleOutlier(
        stack=stack, layers=index_text(numbers), tensors=len(tensors), present=present,
        names=name_patterns([rest for rest, _ in tensors], limit=_NAMES)[0],
        larger=larger, factor=10 ** min(least for _, least in tensors),
    )  # fmt: skip
