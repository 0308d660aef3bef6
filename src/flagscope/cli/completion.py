"""Shell completion of file names.

Sources and outputs are texts for click: a source may be a hub name or a URL, and `-` is an output.
For those the shells would complete nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

_FILES = frozenset({"F", "SOURCE", "FILE.json", "NAME|FILE.toml|none"})


class _FileName(click.types.StringParamType):
    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del ctx, param
        return [CompletionItem(incomplete, type="file")]


def complete_file_names(commands: Iterable[click.Command]) -> None:
    """Let shells complete file names where commands take a source or a file."""
    for command in commands:
        for parameter in command.params:
            single = isinstance(parameter, click.Argument) and parameter.nargs == 1
            if parameter.type is click.STRING and (single or parameter.metavar in _FILES):
                parameter.type = _FileName()
