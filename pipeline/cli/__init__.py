"""The `pipeline` command; README.md lists its exit codes."""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from pipeline.cli import run
from pipeline.cli.check import check, diff
from pipeline.cli.data import describe, head, sql
from pipeline.cli.doctor import doctor
from pipeline.cli.operate import completion, history, logs, schedule
from pipeline.cli.status import plan, status
from pipeline.cli.streams import OutputLost, output_error, prepare_streams
from pipeline.errors import PipelineError, UsageError, visible
from pipeline.runs.job import exit_code
from pipeline.runs.stopping import Stopped, stoppable
from pipeline.tasks import luigi_options
from pipeline.tasks.base import log
from pipeline.version import __version__

__all__ = ["cli", "exit_code", "main"]

_STOPPED = "stopped; finished steps are kept, and the same command continues"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pipeline")
def cli() -> None:
    """Months of New York taxi trips, from TLC's site to a Parquet lake and a warehouse.

    Settings come from the options, else from the environment (PIPELINE_LAKE …), else from luigi.cfg.

    Exit codes: 0 done, 1 some months failed, 2 usage, 3 not published yet, 4 not run, 5 not planned, 6 already running.
    """


for _command in (run.backfill, run.latest, run.demo, plan, status, run.redo, run.refresh, check, diff):
    cli.add_command(_command)
for _command in (describe, head, sql, doctor, schedule, history, logs, completion):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; an error gets one message, never a traceback."""
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
        # In one line, like every other message; click would write several.
        context = getattr(error, "ctx", None)
        more = f"; see {context.command_path} --help" if context else ""
        _fail(" ".join(error.format_message().split()).rstrip(".") + more, error.exit_code)
    except click.Abort as aborted:  # click raises it in place of Stopped.
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
    handler = logging.StreamHandler()
    handler.format = lambda record: visible(logging.Formatter().format(record))  # type: ignore[method-assign]
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [handler]
