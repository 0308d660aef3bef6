"""Values of family files that a config may set, and the activations that are known."""

from __future__ import annotations

import difflib

from flagscope.arch.activations import ELEMENTWISE, HOMOGENEOUS, LINEAR
from flagscope.arch.family import ConfigRule, FlagRule
from flagscope.arch.table import Table
from flagscope.errors import ArchitectureError

_ACTIVATIONS = LINEAR | HOMOGENEOUS | ELEMENTWISE | {"unknown", "softmax", "ssm", "ssm gate"}


def read_config(table: Table | None, default: str | float | None) -> ConfigRule:
    """A value, or the config keys that say it, and its default."""
    if table is None:
        return ConfigRule((), default)
    if isinstance(default, str):
        rule = ConfigRule(table.names("config", ()), table.text("default", default))
    else:
        rule = ConfigRule(table.names("config", ()), table.number("default", default or 0.0))
    table.close()
    return rule


def read_activation(table: Table | None) -> ConfigRule:
    """What lies between two maps, of which the freedom of the neurons follows."""
    rule = read_config(table, "unknown")
    if table is not None:
        check_activation(str(rule.default), f"{table.place}.default")
    return rule


def check_activation(name: str, place: str) -> None:
    """Refuse the name of an activation of which nothing is known."""
    if name.lower() not in _ACTIVATIONS:
        near = difflib.get_close_matches(name.lower(), _ACTIVATIONS, n=1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ArchitectureError(
            f"{place}: no activation is known by the name {name!r}",
            hint=f"{meant}Known ones: {', '.join(sorted(_ACTIVATIONS))}",
        )


def read_flag(table: Table | None, default: bool) -> FlagRule:
    """A truth value, or the config keys that say it, and its default."""
    if table is None:
        return FlagRule((), default)
    rule = FlagRule(table.names("config"), table.flag("default"))
    table.close()
    return rule
