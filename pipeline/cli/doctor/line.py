"""What a check says: one line, and within which time it must have said it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Line:
    """What one check found: `status` is ok, warning or failed; `remedy` is what a person does about the last two."""

    check: str
    status: str
    message: str
    remedy: str = ""


def ok(check: str, message: str) -> Line:
    """Nothing to be done."""
    return Line(check, "ok", message)


def warning(check: str, message: str, remedy: str = "") -> Line:
    """Runs will work, but not as well as they could, or not for long."""
    return Line(check, "warning", message, remedy)


def failed(check: str, message: str, remedy: str = "") -> Line:
    """Runs will fail."""
    return Line(check, "failed", message, remedy)


def within(seconds: float, check: str, ask: Callable[[], Iterable[Line]]) -> list[Line]:
    """What the check says; an error is a line, too, and so is no answer within these seconds.

    The check runs in a thread, which is left alone when its time is up: what it waits for may know no limit.
    """
    lines: list[Line] = []

    def run() -> None:
        try:
            lines.extend(ask())
        except PipelineError as error:
            message, _, remedy = str(error).partition("; ")
            lines.append(failed(check, message, remedy or f"look at [pipeline] {check}"))
        except Exception as error:  # One that nobody foresaw must not keep the others from being seen.
            lines.append(failed(check, f"{type(error).__name__}: {error}", "this is a mistake of the check: report it"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return [failed(check, f"no answer within {seconds:g} s", "look at the network, and at what is asked")]
    return lines
