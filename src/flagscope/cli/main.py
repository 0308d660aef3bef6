"""The `flagscope` command and its exit codes.

0 done; 1 done, but some tasks failed; 2 wrong use or unreadable source; 3 internal error; 4 what
`--fail-on` names was found; 130 interrupted. An error is one line and a hint; `--debug` shows its
trace as well.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click
from click.core import ParameterSource
from click.shell_completion import shell_complete

from flagscope.cli.catalogue import families_command
from flagscope.cli.compare import compare_command
from flagscope.cli.completion import complete_file_names
from flagscope.cli.heads import heads_command
from flagscope.cli.inspect import inspect_command
from flagscope.cli.interrupt import leave
from flagscope.cli.lab import lab_command
from flagscope.cli.report import report_command
from flagscope.cli.scan import demo_command, scan_command
from flagscope.cli.streams import given_up, prepared_streams, stdout_failure
from flagscope.cli.text import complain, log
from flagscope.cli.track import track_command
from flagscope.errors import FlagscopeError
from flagscope.guard import told
from flagscope.masking import masked

WRONG_USE, INTERNAL_ERROR, INTERRUPTED = 2, 3, 130
_COMPLETE = "_FLAGSCOPE_COMPLETE"  # set by the script that click gives to a shell


@click.group(
    invoke_without_command=True,
    epilog="Defaults: each option has a variable of the environment, FLAGSCOPE_SCAN_RANK for "
    "`scan --rank`. The command line overrides it.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "auto_envvar_prefix": "FLAGSCOPE",  # defaults of options: FLAGSCOPE_SCAN_RANK, …
    },
)
@click.version_option(package_name="flagscope")
@click.pass_context
def cli(context: click.Context) -> None:
    """Measure how the layers and heads of a network are aligned, from its weights alone."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.add_command(scan_command)
cli.add_command(inspect_command)
cli.add_command(compare_command)
cli.add_command(heads_command)
cli.add_command(track_command)
cli.add_command(families_command)
cli.add_command(report_command)
cli.add_command(demo_command)
cli.add_command(lab_command)
complete_file_names(cli.commands.values())

_DEBUG = "--debug"
for _command in (cli, *cli.commands.values()):
    _option = click.Option(
        [_DEBUG], is_flag=True, expose_value=False, help="Show the traceback of an error."
    )
    _command.params.append(_option)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    if not prepared_streams():
        sys.exit(WRONG_USE)
    if instruction := os.environ.get(_COMPLETE):
        sys.exit(shell_complete(cli, {}, "flagscope", _COMPLETE, instruction))
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        failure = stdout_failure()
        if failure is not None and given_up(failure):
            code = WRONG_USE
        sys.exit(code)
    except KeyboardInterrupt:
        log("interrupted")
        leave(INTERRUPTED)


def _run(arguments: list[str]) -> int:
    # Looked for here, since it is for errors anywhere, those of parsing included.
    debug = _DEBUG in arguments
    try:
        # Not cli.main: it takes EOFError for an interrupt, and a closed pipe for a failure.
        with cli.make_context("flagscope", arguments) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        _complain_of_use(error)
        return WRONG_USE
    except FlagscopeError as error:
        if debug:
            sys.stderr.write(masked(traceback.format_exc()))
        complain(str(error), error.hint or "see flagscope --help")
        return WRONG_USE
    except BrokenPipeError as error:
        # The reader of stdout went away (`| head`): nothing is wrong, and nothing more to say.
        given_up(error)
        return 0
    except Exception as error:
        if isinstance(error, OSError) and stdout_failure() is not None:
            return WRONG_USE  # said in the end, when the rest of stdout does not leave either
        if debug:
            sys.stderr.write(masked(traceback.format_exc()))
        complain(
            f"internal error: {told(error)}",
            "this is a fault of flagscope, not of its use: report it with what --debug shows",
        )
        return INTERNAL_ERROR
    return code if isinstance(code, int) else 0


def _complain_of_use(error: click.ClickException) -> None:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "flagscope"
    message = error.format_message().rstrip(".") + _variable(error, context)
    complain(message[:1].lower() + message[1:], f"see `{command} --help`")


def _variable(error: click.ClickException, context: click.Context | None) -> str:
    """The environment variable that a wrong value came from, which the command does not show."""
    parameter = getattr(error, "param", None)
    if context is None or parameter is None or parameter.name is None:
        return ""
    if context.get_parameter_source(parameter.name) is not ParameterSource.ENVIRONMENT:
        return ""
    return f" (from {context.auto_envvar_prefix}_{parameter.name.upper()})"
