"""What plain `luigi` prints about an error: its message instead of a traceback, and again at the very end of the run.

Promise: the end of the output of a failed run says why it failed, whichever process the error happened in. An error
that this package does not raise on purpose keeps its traceback, and its message ends the run as well.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType

from luigi.parameter import ParameterException
from luigi.rpc import RPCError
from luigi.scheduler import FAILED
from luigi.worker import Worker

from pipeline.errors import PipelineError, UnexpectedError, error_from_json, visible

log = logging.getLogger("luigi-interface.pipeline")
_luigi = logging.getLogger("luigi-interface")

_NO_ANSWER = "Failed connecting to remote scheduler"
_NO_SCHEDULER = (
    "Start luigid with: luigid --address 127.0.0.1 --state-path luigid.pickle, or run without it: --local-scheduler"
)
_SUMMARY = "===== Luigi Execution Summary ====="
_NOT_GRANTED = "not granted run permission"
_NOT_RUN = (
    "Some steps were not run here: another worker has or had them, or they failed less than [scheduler] "
    "disable_persist seconds ago and luigid holds them back; its visualiser says which"
)
_TRACEBACK = "Traceback (most recent call last):"
#: While it plans, Luigi logs the traceback of an error as text; for one of ours the message is enough.
_OURS_AS_TEXT = re.compile(
    rf"{re.escape(_TRACEBACK)}.*^(?:pipeline\.errors|luigi\.parameter)\.(\w+: .*)", re.DOTALL | re.MULTILINE
)

#: How Luigi says that a signal ended the process of a step.
_KILLED = re.compile(r"^Task \S+ died unexpectedly with exit code -(\d+)")
_OUT_OF_MEMORY = (
    "the step's process was killed (signal 9), most likely because the machine ran out of memory (the kernel's log "
    "says so then); give the machine or container more memory (mem_limit in docker/compose.yaml), use fewer --workers, "
    "or a smaller load_memory under [pipeline]"
)
#: The errors of this process before any step ran, in order, each once.
_planning_errors: dict[str, None] = {}


def step_error(subject: str, explanation: str | None) -> PipelineError:
    """The error of a step, from the text that the scheduler has: JSON of what `Step.on_failure` returned.

    For a process that was killed the scheduler has Luigi's words; then the error says what the signal means.
    """
    text = explanation or ""
    with suppress(ValueError):
        text = str(json.loads(text))
    error = error_from_json(text)
    if error.kind != "Failed":
        return error
    message = str(error)
    if match := _KILLED.search(message):
        number = int(match[1])
        message = f"the step's process was ended by signal {number} ({signal.strsignal(number) or 'unknown'})"
        message = _OUT_OF_MEMORY if number == signal.SIGKILL else message
    return UnexpectedError(f"{subject}: {message}")


class _MessageOnly(logging.Filter):
    """Replaces the traceback of an error that its message explains, and ends Luigi's summary with all errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if message := _explained(record.exc_info[1] if record.exc_info else None):
            text, record.exc_info = f"{text}\n{message}", None
            _planning_errors[message] = None
        elif text.startswith(_NO_ANSWER):
            text, record.exc_info = f"{text}. {_NO_SCHEDULER}", None
        elif match := _OURS_AS_TEXT.search(text):
            _planning_errors[match[1].rstrip()] = None
            text = text[: match.start()] + match[1].rstrip()
        elif _TRACEBACK in text:
            _planning_errors[text.strip().splitlines()[-1]] = None
        elif _SUMMARY in text:
            errors = dict.fromkeys([*_planning_errors, *_failures(), *([_NOT_RUN] if _NOT_GRANTED in text else [])])
            text = "\n".join([text.rstrip(), *([""] if errors else []), *errors])
        record.msg, record.args = visible(text), ()
        return True


def _failures() -> Iterator[str]:
    """The scheduler's messages about the steps that failed in the run whose summary Luigi is logging."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and not isinstance(frame.f_locals.get("worker"), Worker):
        frame = frame.f_back
    if frame is None:
        return
    worker = frame.f_locals["worker"]
    for task in dict.fromkeys(task for task, status, _ in worker._add_task_history if status == FAILED):
        with suppress(RPCError):
            error = step_error(task.subject, worker._scheduler.fetch_error(task.task_id)["error"])
            yield str(error) if error.kind == "Failed" else error.words


def _explained(error: BaseException | None) -> str:
    """The message of an error that needs no traceback; empty for any other."""
    if isinstance(error, PipelineError):
        return error.words
    if isinstance(error, ParameterException):
        return f"UsageError: {error}"
    if isinstance(error, RPCError):
        return f"UsageError: {error}. {_NO_SCHEDULER}"
    for frame, _ in traceback.walk_tb(error.__traceback__ if error else None):
        if frame.f_code.co_name == "_get_task_kwargs":  # Where Luigi parses the options of the command line.
            return f"UsageError: --{frame.f_locals['param_name'].replace('_', '-')} {frame.f_locals['attr']}: {error}"
    if "Error when parsing the default value" in str(error):
        return f"UsageError: a value of the command line or luigi.cfg: {error}"
    return ""


_luigi.addFilter(_MessageOnly())
