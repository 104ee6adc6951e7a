"""Run a task and say what became of each step: what the `pipeline` command builds its answers on."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from types import FrameType
from typing import Any

import luigi
import requests
from luigi.rpc import RemoteScheduler
from luigi.scheduler import Scheduler
from luigi.worker import Worker

from pipeline.errors import UsageError
from pipeline.tasks.base import Step

#: How long children may take to end cleanly once told to; their work is safe at any moment all the same.
_GRACE_S = 3.0
_AGAIN_S = 0.3


@dataclass(frozen=True)
class Outcome:
    """What became of one step: its status in Luigi's words, and, for a failure, the error's class and text."""

    step: str
    dataset: str
    month: date | None
    status: str
    seconds: float
    kind: str = ""
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether it ran and failed."""
        return self.status in ("FAILED", "DISABLED")


class Stopped(Exception):
    """The run was told to stop, by the signal of this number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(
    roots: Sequence[luigi.Task],
    *,
    workers: int,
    scheduler_url: str | None,
    look: Callable[[], None] = lambda: None,
    fail_fast: bool = False,
) -> list[Outcome]:
    """Run the tasks with all that they need; returns what became of each step that was missing.

    `look` is called in this thread several times a second; no thread may run beside one that forks. With `fail_fast` no
    further step is begun after the first failure; those that run are finished.

    Raises:
        UsageError: nobody answers at the scheduler's address.
        Stopped: SIGINT or SIGTERM arrived; every child has ended.
    """
    if scheduler_url:
        _ask(scheduler_url)
    steps: dict[str, Step] = {}
    for root in roots:
        _missing(root, steps)
    factory = _Factory(look, fail_fast)
    verbose = logging.getLogger("luigi-interface").level == logging.INFO
    with _stoppable():
        luigi.build(
            list(roots),
            worker_scheduler_factory=factory,
            workers=workers,
            local_scheduler=not scheduler_url,
            scheduler_url=scheduler_url or "",
            log_level="INFO" if verbose else "CRITICAL",
        )
    known: dict[str, Any] = factory.scheduler.task_list("", "", limit=False)
    look()
    return [_outcome(step, known.get(step.task_id, {}), factory.scheduler) for step in steps.values()]


def _missing(task: luigi.Task, seen: dict[str, Step]) -> dict[str, Step]:
    """The incomplete steps below a task, by id."""
    for needed in luigi.task.flatten(task.requires()):
        if needed.task_id not in seen and not needed.complete():
            _missing(needed, seen)
            seen[needed.task_id] = needed
    return seen


def _outcome(step: Step, known: dict[str, Any], scheduler: Any) -> Outcome:
    status = known.get("status", "UNKNOWN")
    began, ended = known.get("time_running"), known.get("last_updated")
    outcome = Outcome(step.step_name, step.spec.name, step.month, status, ended - began if began and ended else 0.0)
    if not outcome.failed:
        return outcome
    kind, text = _told(scheduler.fetch_error(step.task_id).get("error"))
    return replace(outcome, kind=kind, error=text)


def _told(error: str | None) -> tuple[str, str]:
    """The error's kind and text, out of what the scheduler keeps: `Step.on_failure`'s words, as JSON."""
    try:
        told = str(json.loads(error or '""')).strip()
    except ValueError:
        told = str(error)
    if "Traceback (most recent call last):" in told:  # It was said when it happened.
        told = told.splitlines()[-1]
    kind, _, text = told.partition(": ")
    return (kind, text) if kind.isidentifier() else ("Failed", told or "nobody said why")


class _Factory:
    """Luigi's way to choose scheduler and worker; keeps the scheduler, which knows what became of each task."""

    scheduler: Any

    def __init__(self, look: Callable[[], None], fail_fast: bool) -> None:
        self._look, self._fail_fast = look, fail_fast

    def create_local_scheduler(self) -> Any:
        self.scheduler = Scheduler(prune_on_get_work=True, record_task_history=False)
        return self.scheduler

    def create_remote_scheduler(self, url: str) -> Any:
        self.scheduler = RemoteScheduler(url)
        # A step that failed before is held back for a while; whoever asks for it again has mended the cause.
        for task_id in self.scheduler.task_list("DISABLED", "", limit=False):
            self.scheduler.re_enable_task(task_id)
        return self.scheduler

    def create_worker(self, scheduler: Any, worker_processes: int, assistant: bool = False) -> Any:
        try:
            worker = _Worker(scheduler=scheduler, worker_processes=worker_processes, assistant=assistant)
        except (OSError, ImportError) as error:
            raise UsageError(
                f"processes cannot share a lock: {error}; make /dev/shm a file system that can be written"
            ) from error
        worker.look, worker.fail_fast = self._look, self._fail_fast
        return worker


class _Worker(Worker):
    """Luigi's worker, which looks up whenever it waits for a step to end."""

    look: Callable[[], None]
    fail_fast: bool

    def _handle_next_task(self) -> None:
        super()._handle_next_task()
        self.look()

    def _add_task(self, *arguments: Any, **named: Any) -> None:
        # The only way by which Luigi's worker hears of, and passes on, what became of a step.
        super()._add_task(*arguments, **named)
        if self.fail_fast and named.get("status") == "FAILED" and _told(named.get("expl"))[0] != "NotPublished":
            self._start_phasing_out()


def _ask(url: str) -> None:
    try:
        requests.get(f"{url.rstrip('/')}/api/resource_list", timeout=10)
    except requests.RequestException as error:
        raise UsageError(
            f"--scheduler {url}: no luigid answers there; start one with: "
            "luigid --address 127.0.0.1 --state-path luigid.pickle"
        ) from error


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the run and every child of it, at once."""
    owner, stopped_by = os.getpid(), list[int]()
    caught, ended = threading.Event(), threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner or caught.is_set():  # A child is ended by its parent.
            return
        if not stopped_by:
            threading.Thread(target=_insist, args=(number, caught, ended), daemon=True).start()
        stopped_by.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    hook, sys.unraisablehook = sys.unraisablehook, _without_interrupts(sys.unraisablehook)
    try:
        yield
    except KeyboardInterrupt:
        caught.set()
        for child in multiprocessing.active_children():
            child.terminate()
        for child in multiprocessing.active_children():
            child.join()
        raise Stopped(stopped_by[0] if stopped_by else signal.SIGINT) from None
    finally:
        caught.set()
        ended.set()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _insist(number: int, caught: threading.Event, ended: threading.Event) -> None:
    """Send the signal again until its exception has arrived, then give the children a while before they are killed.

    Python drops an exception that is raised in a hook of fork or in a finalizer, and a run spends much time in fork.
    """
    while not caught.wait(_AGAIN_S):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    if not ended.wait(_GRACE_S):
        _kill_children()


def _without_interrupts(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The hook, but for the interrupts that Python drops: `_insist` sees to them."""
    return lambda dropped: None if isinstance(dropped.exc_value, KeyboardInterrupt) else hook(dropped)


def _kill_children() -> None:
    for child in multiprocessing.active_children():
        if child.pid is not None:
            os.kill(child.pid, signal.SIGKILL)
