"""What plain `luigi` says of an error: its text instead of a traceback, and once more as the last thing of all.

Promise: whoever looks at the end of a run that failed reads why, whichever process it happened in. Where nobody
foresaw the error, the traceback stays where it happened, and its last line ends the run.
"""

from __future__ import annotations

import logging
import re
import signal
import traceback
from typing import Any

from luigi.parameter import ParameterException
from luigi.rpc import RPCError

from pipeline.errors import PipelineError, cut, visible

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
#: An error that needs no traceback at the end of one that Luigi has made a text of.
_AS_TEXT = re.compile(
    rf"{re.escape(_TRACEBACK)}.*^(?:pipeline\.errors|luigi\.parameter)\.(\w+: .*)", re.DOTALL | re.MULTILINE
)

#: How Luigi says that a signal ended the process of a step.
_LOST = re.compile(r"^Task \S+ died unexpectedly with exit code -(\d+)")
_KILLED = (
    "the step's process was killed (signal 9), most likely because memory ran out, as the kernel's log then says; give "
    "the machine or container more memory (mem_limit in docker/compose.yaml), use fewer --workers, or a smaller "
    "load_memory under [pipeline]"
)

#: So much of an error is shown and kept in the history.
MOST_CHARACTERS = 10_000

#: What went wrong in this run, in the order in which this process learnt it; each once.
_learnt: dict[str, None] = {}


class Told(str):
    """The words of an error on their way from a step's process: whoever receives them notes them, too."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (str(self),)


def words_of(error: BaseException) -> str:
    """The error's kind and text, cut where a library has quoted something huge in it."""
    return f"{type(error).__name__}: {cut(str(error), MOST_CHARACTERS)}"


def of_lost_process(words: str) -> str:
    """Luigi's words of a process that is gone, with what the signal means that ended it; other words as they are."""
    if not (found := _LOST.search(words)):
        return words
    number = int(found[1])
    if number == signal.SIGKILL:
        return _KILLED
    return f"the step's process was ended by signal {number} ({signal.strsignal(number) or 'unknown'})"


def note(words: str) -> None:
    """Remember what is to be said again at the end; of a traceback its last line."""
    words = words.strip()
    _learnt[words.splitlines()[-1] if _TRACEBACK in words else words] = None


def log_levels() -> dict[str, int]:
    """From which level on each logger speaks, for a process that does not inherit it."""
    return {logger.name: logger.level for logger in (_luigi, log)}


def log_alike(levels: dict[str, int]) -> None:
    """Log as the process does that gave these levels, unless logging is set up already."""
    if log.hasHandlers():
        return
    logging.basicConfig(format="%(message)s")
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _receive(words: str) -> str:
    note(words)
    return words


class _MessageOnly(logging.Filter):
    """Turns an error that a person can understand into its words, and ends Luigi's summary with all that were noted."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if words := _understandable(error):
            note(words)
            _replace(record, f"{text}\n{words}")
            record.exc_info = None
        elif text.startswith(_NO_ANSWER):
            _replace(record, f"{text}. {_NO_SCHEDULER}")
            record.exc_info = None
        elif found := _AS_TEXT.search(text):
            note(found[1])
            _replace(record, text[: found.start()] + found[1].rstrip())
        elif _TRACEBACK in text:
            note(text)
        elif _SUMMARY in text and (last := [*_learnt, *([_NOT_RUN] if _NOT_GRANTED in text else [])]):
            _replace(record, "\n".join([text.rstrip(), "", *last]))
        if (shown := visible(text := record.getMessage())) != text:
            _replace(record, shown)
        return True


def _understandable(error: BaseException | None) -> str:
    """The words of an error that needs no traceback; empty for any other."""
    if isinstance(error, PipelineError):
        return words_of(error)
    if isinstance(error, ParameterException):
        return f"UsageError: {error}"
    if isinstance(error, RPCError):
        return f"UsageError: {error}. {_NO_SCHEDULER}"
    if error is not None and (option := _unparsed(error)):
        return f"UsageError: {option}: {error}"
    return ""


def _unparsed(error: BaseException) -> str:
    """The option of the command line whose value Luigi, by its own words, could not make anything of."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_get_task_kwargs":
            return f"--{frame.f_locals['param_name'].replace('_', '-')} {frame.f_locals['attr']}"
    return "a value of the command line or luigi.cfg" if "Error when parsing the default value" in str(error) else ""


def _replace(record: logging.LogRecord, text: str) -> None:
    record.msg, record.args = text, ()


_luigi.addFilter(_MessageOnly())
