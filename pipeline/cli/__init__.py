"""The `pipeline` command; docs/reference/exit-codes.md lists its exit codes."""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from pipeline.cli.streams import OutputLost, output_error, prepare_streams
from pipeline.errors import PipelineError, UsageError, did_you_mean, visible
from pipeline.runs.stopping import Stopped, stoppable
from pipeline.version import __version__

#: By name: the module of the command, and its summary, so that the help imports none of them.
_COMMANDS = {
    "backfill": ("run", "Bring months up to date."),
    "board": ("board", "Serve a web page that shows every month."),
    "check": ("check", "Show what the checks of months found, and what changed."),
    "completion": ("operate", "Print the line that turns on completion in a SHELL."),
    "demo": ("run", "Backfill three synthetic months, without the internet."),
    "describe": ("data", "Describe the datasets, or one dataset or mart."),
    "diff": ("check", "Show what differs between two months of a dataset."),
    "doctor": ("doctor", "Check what a run needs, and say what is missing."),
    "head": ("data", "Show the first rows of a month in the lake."),
    "history": ("operate", "List the runs of this machine, or show one of them."),
    "latest": ("run", "Bring the latest published months up to date."),
    "logs": ("operate", "Show the last log of each step of a month."),
    "plan": ("status", "Show what a backfill would do, and why."),
    "redo": ("run", "Delete a step and all later steps, and run them again."),
    "refresh": ("run", "Find months that are new, republished or out of date."),
    "report": ("report", "Write a page of pictures of the marts."),
    "schedule": ("operate", "Print a daily job that brings the latest months."),
    "sql": ("data", "Run one SQL statement that only reads."),
    "status": ("status", "Show how far each month is."),
}
_STOPPED = "stopped; finished steps are kept, and the same command continues"


def import_command(name: str) -> click.Command:
    """The command of this name; imports its module."""
    from pipeline.tasks import luigi_options  # noqa: F401 - before Luigi: it reports an invalid luigi.cfg in one line.

    command: click.Command = getattr(import_module(f"pipeline.cli.{_COMMANDS[name][0]}"), name)
    return command


class _Group(click.Group):
    """A group whose commands are only summaries until one of them is run."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, import_command(name) if name else None, rest


_SUMMARIES = [click.Command(name, short_help=summary) for name, (_, summary) in _COMMANDS.items()]


@click.group(cls=_Group, commands=_SUMMARIES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pipeline")
def cli() -> None:
    """Months of New York taxi trips, from TLC's site to a Parquet lake and a warehouse.

    Settings come from the options, else from the environment (PIPELINE_LAKE …), else from luigi.cfg.

    Exit codes: 0 done, 1 some months failed, 2 usage, 3 not published yet, 4 not run, 5 not planned, 6 already running.
    """
    from pipeline.tasks.luigi_options import prepare_luigi

    prepare_luigi()
    _log_steps()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; an error gets one message, never a traceback."""
    prepare_streams()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words and words[0] in _COMMANDS:
            import_command(words[0])  # Before `stoppable`: a signal during an import ends the command immediately.
        with stoppable():
            cli.main(args=arguments, prog_name="pipeline", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        # In one line, like every other message; click would write several.
        context = getattr(error, "ctx", None)
        more = f"; see {context.command_path} --help" if context else ""
        kind = getattr(getattr(error, "param", None), "type", None)
        if isinstance(kind, click.Choice) and not isinstance(error, click.MissingParameter):
            # The message begins with the quoted word.
            more = did_you_mean([error.message.split("'")[1]], map(str, kind.choices)) + more
        _fail(" ".join(error.format_message().split()).rstrip(".") + more, error.exit_code)
    except click.Abort as aborted:  # click raises it in place of Stopped, and of EOFError.
        if isinstance(aborted.__cause__, EOFError):
            raise aborted.__cause__ from None
        _fail(_STOPPED, 128 + getattr(aborted.__context__, "number", signal.SIGINT))
    except Stopped as stopped:
        _fail(_STOPPED, 128 + stopped.number)
    except UsageError as error:
        _fail(str(error), 2)
    except PipelineError as error:
        _fail(error.words, 5)
    except OutputLost:
        pass
    except SystemExit:  # Its code is about the months; lost output does not change it.
        _report_lost_output()
        raise
    sys.exit(_report_lost_output())


def _report_lost_output() -> int:
    """Say why output was lost, unless its reader left; returns the exit code, 0 when nothing was lost."""
    error = output_error()
    if error is None:
        return 0
    if error.errno == errno.EPIPE:  # The reader has left, as `| head` does.
        return 128 + signal.SIGPIPE
    click.echo(f"pipeline: standard output cannot be written: {error.strerror}", err=True)
    return 2


def _fail(message: str, code: int) -> NoReturn:
    click.echo(visible(f"pipeline: {message}"), err=True)
    sys.exit(code)


def _log_steps() -> None:
    """Log one line for each finished step; of Luigi's own lines only warnings and errors."""
    from pipeline.tasks.messages import log

    handler = logging.StreamHandler()
    handler.format = lambda record: visible(logging.Formatter().format(record))  # type: ignore[method-assign]
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [handler]
