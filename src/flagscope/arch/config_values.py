"""Reads values, flags and axis sizes from a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flagscope.arch.limits import LARGEST_NUMBER, SIZE, brief
from flagscope.arch.rules import ActivationRule, FlagRule, NumberRule
from flagscope.errors import ArchitectureError


def config_entry(config: Mapping[str, Any] | None, paths: Sequence[str]) -> tuple[str, Any] | None:
    """The first of these dotted paths that the config sets to a value other than null, with it."""
    for path in paths:
        value: Any = config or {}
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return path, value
    return None


def config_flag(paths: Sequence[str], config: Mapping[str, Any] | None) -> bool:
    """The truth value at the first of these paths that the config sets."""
    entry = config_entry(config, paths)
    return entry is not None and bool(entry[1])


def config_truth(rule: FlagRule, config: Mapping[str, Any] | None) -> bool:
    """The truth value in the config, else the rule's default."""
    entry = config_entry(config, rule.config)
    return rule.default if entry is None else bool(entry[1])


def config_value(rule: NumberRule | ActivationRule, config: Mapping[str, Any] | None) -> Any:
    """The value in the config, else the rule's default.

    Raises
    ------
    ArchitectureError
        If the type in the config differs from that of the default.
    """
    entry = config_entry(config, rule.config)
    if entry is None:
        return rule.default
    path, value = entry
    expected = str if isinstance(rule.default, str) else (int, float)
    if isinstance(value, bool) or not isinstance(value, expected):
        kind = "a name" if expected is str else "a number"
        raise ArchitectureError(
            f"config key {path!r}: expected {kind}, got {brief(value)}", hint="correct the config"
        )
    # Neither NaN nor infinity, nor an integer with more digits than any size has.
    if not isinstance(value, str) and not abs(value) <= LARGEST_NUMBER:
        raise ArchitectureError(
            f"config key {path!r}: expected a number up to {LARGEST_NUMBER:g}, got {brief(value)}",
            hint="correct the config",
        )
    return value


@dataclass(frozen=True)
class Known:
    """A size and its source; one size per stage if the config lists several."""

    value: int
    origin: str
    stages: tuple[int, ...] = ()

    def at(self, stage: int) -> Known:
        """The size in one stage."""
        if not self.stages:
            return self
        return Known(self.stages[min(stage, len(self.stages) - 1)], f"{self.origin}[{stage}]")


def known_sizes(
    rules: Mapping[str, tuple[str, ...]],
    config: Mapping[str, Any] | None,
    heads: int | None,
    *,
    lenient: bool = False,
) -> dict[str, Known]:
    """Axis sizes from a config or the heads argument.

    Raises
    ------
    ArchitectureError
        If the config holds anything but a positive integer, or a list of these.
    """
    known: dict[str, Known] = {}
    for axis, paths in rules.items():
        entry = _size_entry(config, paths)
        if entry is None:
            continue
        path, value = entry
        stages: tuple[Any, ...] = tuple(value) if isinstance(value, list) and value else (value,)
        if any(
            isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= LARGEST_NUMBER
            for n in stages
        ):
            if lenient:  # without a known family, the key may mean something else
                continue
            raise ArchitectureError(
                f"config key {path!r}: expected a positive integer, got {brief(value)}",
                hint="correct the config (--config F), or give --heads N",
            )
        key = path.rpartition("?")[2]
        origin = "the family's default" if SIZE.fullmatch(key) else f"config key {key!r}"
        known[axis] = Known(stages[0], origin, stages if len(stages) > 1 else ())
    if heads is not None:
        known["h"] = Known(heads, "the heads argument")
    return known


def _size_entry(config: Mapping[str, Any] | None, paths: tuple[str, ...]) -> tuple[str, Any] | None:
    """The first size in the config; "flag?key" counts only if the config sets the flag.

    A number in place of the key is the size itself: "model_type?32" is the default of the family's
    config class, for configs of that class that leave the key out.
    """
    for path in paths:
        flag, conditional, key = path.rpartition("?")
        if conditional and not config_flag((flag,), config):
            continue
        if SIZE.fullmatch(key):
            return path, int(key)
        entry = config_entry(config, (key,))
        if entry is not None:
            return entry
    return None
