"""What plain `luigi` prints about an error: its message instead of a traceback, and again at the very end of the run.

Promise: the end of the output of a failed run says why it failed, whichever process the error happened in. For an error
that nothing here raises on purpose, the traceback stays where it happened, and the message ends the run.
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
    "Start luigid with: luigid --address 127.0.0.1 --state-path luigid.pickle, or do without it: --local-scheduler"
)
_SUMMARY = "===== Luigi Execution Summary ====="
_NOT_GRANTED = "not granted run permission"
_NOT_RUN = (
    "Some steps were not run here: another worker has or had them, or they failed less than [scheduler] "
    "disable_persist seconds ago and luigid holds them back; its visualiser says which"
)
_TRACEBACK = "Traceback (most recent call last):"
#: While it plans, Luigi logs the traceback of an error as a text; of one of ours the message is enough.
_OURS_AS_TEXT = re.compile(
    rf"{re.escape(_TRACEBACK)}.*^(?:pipeline\.errors|luigi\.parameter)\.(\w+: .*)", re.DOTALL | re.MULTILINE
)

#: How Luigi says that a signal ended the process of a step.
_LOST = re.compile(r"^Task \S+ died unexpectedly with exit code -(\d+)")
_KILLED = (
    "the step's process was killed (signal 9), most likely because memory ran out, as the kernel's log then says; give "
    "the machine or container more memory (mem_limit in docker/compose.yaml), use fewer --workers, or a smaller "
    "load_memory under [pipeline]"
)
#: What went wrong in this process before any step ran, in its order; each once.
_planning_errors: dict[str, None] = {}


def step_error(subject: str, explanation: str | None) -> PipelineError:
    """The error of a step, out of what the scheduler has of it: what `Step.on_failure` described, as JSON again.

    Of a process that is gone the scheduler has Luigi's words; then this says what the signal means that ended it.
    """
    text = explanation or ""
    with suppress(ValueError):
        text = str(json.loads(text))
    error = error_from_json(text)
    if error.kind != "Failed":
        return error
    message = str(error)
    if found := _LOST.search(message):
        number = int(found[1])
        message = f"the step's process was ended by signal {number} ({signal.strsignal(number) or 'unknown'})"
        message = _KILLED if number == signal.SIGKILL else message
    return UnexpectedError(f"{subject}: {message}")


def log_levels() -> dict[str, int]:
    """The level of each logger, for a process that does not inherit it."""
    return {logger.name: logger.level for logger in (_luigi, log)}


def log_alike(levels: dict[str, int]) -> None:
    """Log as the process does that gave these levels, unless logging is set up already."""
    if log.hasHandlers():
        return
    logging.basicConfig(format="%(message)s")
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class _MessageOnly(logging.Filter):
    """Replaces the traceback of an error that its message explains, and ends Luigi's summary with all errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if words := _explained(error):
            text, record.exc_info = f"{text}\n{words}", None
            _planning_errors[words] = None
        elif text.startswith(_NO_ANSWER):
            text, record.exc_info = f"{text}. {_NO_SCHEDULER}", None
        elif match := _OURS_AS_TEXT.search(text):
            _planning_errors[match[1].rstrip()] = None
            text = text[: match.start()] + match[1].rstrip()
        elif _TRACEBACK in text:
            _planning_errors[text.strip().splitlines()[-1]] = None
        elif _SUMMARY in text:
            last = dict.fromkeys([*_planning_errors, *_failures(), *([_NOT_RUN] if _NOT_GRANTED in text else [])])
            text = "\n".join([text.rstrip(), *([""] if last else []), *last])
        if (text := visible(text)) != record.getMessage():
            record.msg, record.args = text, ()
        return True


def _failures() -> Iterator[str]:
    """What the scheduler knows of the steps that failed in the run of which Luigi logs the summary."""
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
    """The words of an error that needs no traceback; empty for any other."""
    if isinstance(error, PipelineError):
        return error.words
    if isinstance(error, ParameterException):
        return f"UsageError: {error}"
    if isinstance(error, RPCError):
        return f"UsageError: {error}. {_NO_SCHEDULER}"
    if error is not None and (option := _unparsed(error)):
        return f"UsageError: {option}: {error}"
    return ""


def _unparsed(error: BaseException) -> str:
    """The option of the command line whose value Luigi could not parse, from the frame in which it tried."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_get_task_kwargs":
            return f"--{frame.f_locals['param_name'].replace('_', '-')} {frame.f_locals['attr']}"
    return "a value of the command line or luigi.cfg" if "Error when parsing the default value" in str(error) else ""


_luigi.addFilter(_MessageOnly())
