"""The `flagscope` command and its exit codes.

0 done; 1 done, but some tasks failed; 2 wrong use or unreadable source; 3 internal error; 130
interrupted.
"""

from __future__ import annotations

import sys
import traceback

import click

from flagscope.cli.catalogue import families_command
from flagscope.cli.inspect import inspect_command
from flagscope.cli.scan import demo_command, scan_command
from flagscope.errors import FlagscopeError

INTERNAL_ERROR, INTERRUPTED = 3, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="flagscope")
def cli() -> None:
    """How the layers and heads of a network are aligned, read from its weights alone."""


cli.add_command(scan_command)
cli.add_command(inspect_command)
cli.add_command(families_command)
cli.add_command(demo_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    try:
        code = cli.main(arguments, prog_name="flagscope", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except FlagscopeError as error:
        click.echo(f"error: {error}", err=True)
        click.echo(f"hint: {error.hint or 'see flagscope --help'}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of stdout went away (`| head`): nothing is wrong.
        sys.stderr.close()
        sys.exit(0)
    except Exception:
        traceback.print_exc()
        click.echo("internal error: this is a fault of flagscope", err=True)
        click.echo("hint: report it with the lines above and the output of inspect", err=True)
        sys.exit(INTERNAL_ERROR)
    sys.exit(code if isinstance(code, int) else 0)
