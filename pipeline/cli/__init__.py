"""The `pipeline` command.

Exit codes, here and (but for 3 and 128 + n) under plain `luigi` with our luigi.cfg:

    0  everything asked for is there
    1  some months failed; the others are done
    2  usage: an option, a setting or an argument that cannot be
    3  nothing failed, but some months are not published yet
    4  some steps were not run, because another worker has them or the scheduler went away (plain `luigi`: 2 for that)
    5  the run could not be planned: the lake or the warehouse cannot be asked
    6  this run is already under way
    128 + n  stopped by signal n (130: Ctrl-C, 143: SIGTERM); everything finished so far is kept
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from pipeline.cli import run
from pipeline.cli.check import check
from pipeline.cli.data import head, sql
from pipeline.cli.describe import describe
from pipeline.cli.doctor import doctor
from pipeline.cli.history import completion, history, logs
from pipeline.cli.refresh import redo, refresh
from pipeline.cli.schedule import schedule
from pipeline.cli.status import plan, status
from pipeline.cli.streams import OutputLost, broken_pipe, output_error, prepare_streams
from pipeline.errors import PipelineError, UsageError, visible
from pipeline.runs.job import exit_code
from pipeline.runs.stopping import Stopped, stoppable
from pipeline.tasks import luigi_options
from pipeline.tasks.base import log
from pipeline.version import __version__

__all__ = ["cli", "exit_code", "main"]

_STOPPED = "stopped; every finished step is kept, and the same command goes on from there"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pipeline")
def cli() -> None:
    """Months of New York taxi trips, from TLC's site to a Parquet lake and a warehouse.

    Settings come from these options, the environment (PIPELINE_LAKE …), luigi.cfg, in this order.

    Exit codes: 0 done, 1 some months failed, 2 usage, 3 not published yet, 4 not run, 5 not planned, 6 already running.
    """


_COMMANDS = (
    *(run.backfill, run.latest, run.demo, plan, status, redo, refresh, check, describe, head, sql),
    *(doctor, schedule, history, logs, completion),
)
for _command in _COMMANDS:
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; a mistake of the user gets one message, never a traceback."""
    prepare_streams()
    try:
        with stoppable():
            luigi_options.prepare_luigi()
            _log_steps()
            cli.main(args=arguments, prog_name="pipeline", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        # In a line, like every other message; click would put three lines around it, and choices below each other.
        context = getattr(error, "ctx", None)
        more = f"; see {context.command_path} --help" if context else ""
        _fail(" ".join(error.format_message().split()).rstrip(".") + more, error.exit_code)
    except click.Abort as aborted:  # What click makes of it.
        _fail(_STOPPED, 128 + getattr(aborted.__context__, "number", signal.SIGINT))
    except Stopped as stopped:
        _fail(_STOPPED, 128 + stopped.number)
    except UsageError as error:
        _fail(str(error), 2)
    except PipelineError as error:
        _fail(error.words, 5)
    except OutputLost:
        pass
    except SystemExit:  # The code tells what became of the work.
        _report_lost_output()
        raise
    sys.exit(_report_lost_output())


def _report_lost_output() -> int:
    """Say why output was lost, unless its reader left; returns the exit code for a lost result, 0 where none is."""
    error = output_error()
    if error is None:
        return 0
    if broken_pipe(error):
        return 128 + signal.SIGPIPE
    click.echo(f"pipeline: standard output cannot be written: {error.strerror}", err=True)
    return 2


def _fail(message: str, code: int) -> NoReturn:
    click.echo(visible(f"pipeline: {message}"), err=True)
    sys.exit(code)


class _Formatter(logging.Formatter):
    """Messages alone, with control characters made visible."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _log_steps() -> None:
    """A line for each finished step; Luigi's own lines only from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(message)s"))
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [handler]
