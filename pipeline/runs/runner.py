"""Run a task and say what became of each step: what the `pipeline` command builds its answers on."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Any

import luigi
import requests
from luigi.rpc import RemoteScheduler, RPCError
from luigi.scheduler import Scheduler
from luigi.worker import Worker

from pipeline.errors import PipelineError, StoreError, UsageError, WarehouseError
from pipeline.lake.planning import work_was_done
from pipeline.places import inventory_of
from pipeline.runs.stopping import Stopped as Stopped
from pipeline.runs.stopping import stoppable
from pipeline.settings import current_settings
from pipeline.tasks.base import Step
from pipeline.tasks.messages import of_lost_process

_FAILED = ("FAILED", "DISABLED")
_LOOK_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """What became of one step: its status in Luigi's words, and, for a failure, the error's class and text.

    DONE is what this run did, and what its target says at the end of the run, whichever process did it.
    """

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
        return self.status in _FAILED


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
    with stoppable():
        try:
            known, done = _build(roots, steps, factory, workers, scheduler_url or "")
        except KeyboardInterrupt:
            for child in multiprocessing.active_children():
                child.terminate()
            for child in multiprocessing.active_children():
                child.join()
            raise
    look()
    return [_outcome(step, known.get(step.task_id, {}), done, factory) for step in steps.values()]


def _build(
    roots: Sequence[luigi.Task], steps: dict[str, Step], factory: _Factory, workers: int, scheduler_url: str
) -> tuple[dict[str, Any], set[str]]:
    """Run the tasks; returns what the scheduler knows of them in the end, and the ids of the steps that are done."""
    verbose = logging.getLogger("luigi-interface").level == logging.INFO
    left = len(steps) + 1
    while True:
        known: dict[str, Any] = {}
        try:
            # Luigi's own summary asks once more what is done, perhaps of a server that is gone.
            with suppress(StoreError, WarehouseError):
                luigi.build(
                    list(roots),
                    worker_scheduler_factory=factory,
                    workers=workers,
                    local_scheduler=not scheduler_url,
                    scheduler_url=scheduler_url,
                    log_level="INFO" if verbose else "CRITICAL",
                )
            known = factory.scheduler.task_list("", "", limit=False)
        except RPCError:
            factory.away = f"luigid at {scheduler_url} does not answer any more"
        # What was done here counts although another run is about to replace it.
        done = factory.done | _done(steps.values(), known)
        # A luigid that was started again knows nothing of what is left: it is told, as long as that gets anywhere.
        lost = [
            id for id in steps.keys() - done if known.get(id, {}).get("status") not in ("PENDING", "RUNNING", *_FAILED)
        ]
        if not scheduler_url or factory.away or factory.phasing_out or not 0 < len(lost) < left:
            return known, done
        left = len(lost)


def _done(steps: Collection[Step], known: Mapping[str, Any]) -> set[str]:
    """The ids of the steps that are done, by one inventory."""
    work_was_done()
    try:
        inventory = inventory_of(current_settings())
        # A task of the user's own may leave something else.
        own = {step.task_id for step in steps if step.step_name != step.row and step.complete()}
        ours = [step for step in steps if step.step_name == step.row]
        return own | {step.task_id for step in ours if inventory.done(step.row, step.spec, step.month)}
    except PipelineError:  # Lake or warehouse do not answer any more: then the scheduler's word counts.
        return {step.task_id for step in steps if known.get(step.task_id, {}).get("status") == "DONE"}


def _missing(task: luigi.Task, seen: dict[str, Step]) -> dict[str, Step]:
    """The incomplete steps below a task, by id."""
    for needed in luigi.task.flatten(task.requires()):
        if needed.task_id not in seen and not needed.complete():
            _missing(needed, seen)
            seen[needed.task_id] = needed
    return seen


def _outcome(step: Step, known: dict[str, Any], done: set[str], factory: _Factory) -> Outcome:
    id, status = step.task_id, known.get("status", "UNKNOWN")
    kind = error = ""
    if id in done:
        status = "DONE"
    elif id in factory.failures:
        status, (kind, error) = "FAILED", _told(factory.failures[id])
    elif status in _FAILED:
        kind, error = _told(factory.scheduler.fetch_error(id).get("error"))
    else:  # Done in another lake or warehouse, if luigid says so.
        status, error = "PENDING" if status == "DONE" else status, factory.away
    if kind == "Failed":  # Luigi's words, not the step's.
        error = f"{step.subject}: {of_lost_process(error)}"
    began, ended = known.get("time_running"), known.get("last_updated")
    seconds = ended - began if began and ended else 0.0
    return Outcome(step.step_name, step.spec.name, step.month, status, seconds, kind, error)


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

    def __init__(self, look: Callable[[], None], fail_fast: bool) -> None:
        self._look, self._fail_fast = look, fail_fast
        self.scheduler: Any = None
        self.phasing_out = False
        #: Why nothing more is known of the scheduler.
        self.away = ""
        self.done: set[str] = set()
        #: By task: what its last failure in this run said.
        self.failures: dict[str, str | None] = {}

    def create_local_scheduler(self) -> Any:
        self.scheduler = Scheduler(prune_on_get_work=True, record_task_history=False)
        return self.scheduler

    def create_remote_scheduler(self, url: str) -> Any:
        if self.scheduler is None:
            self.scheduler = _Luigid(url)
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
        worker.look, worker.fail_fast, worker.factory = self._look, self._fail_fast, self
        return worker


class _Luigid(RemoteScheduler):
    """A luigid that may be away for as long as `[core]` rpc_retry_attempts and rpc_retry_wait say, and no longer.

    Luigi's own waits as long for every call, those that only show progress included, and again after it has given up.
    """

    _given_up = False

    def _fetch(self, url_suffix: str, body: Any) -> Any:
        until = time.monotonic() + (self._rpc_retry_attempts - 1) * self._rpc_retry_wait
        once = url_suffix in ("/api/ping", "/api/set_task_status_message", "/api/set_task_progress_percentage")
        while True:
            try:
                return self._fetcher.fetch(f"{self._url}{url_suffix}", body, self._connect_timeout)
            except requests.RequestException as error:
                if once or self._given_up or time.monotonic() > until:
                    self._given_up = self._given_up or not once
                    raise RPCError(f"luigid at {self._url} does not answer", error) from error
            time.sleep(_LOOK_S)


class _Worker(Worker):
    """Luigi's worker, which looks up whenever it waits for a step to end."""

    look: Callable[[], None]
    fail_fast: bool
    factory: _Factory

    def _handle_next_task(self) -> None:
        super()._handle_next_task()
        self.look()

    def _add_task(self, *arguments: Any, **named: Any) -> None:
        # The only way by which Luigi's worker hears of, and passes on, what became of a step.
        if named.get("status") == "FAILED":
            self.factory.failures[named["task_id"]] = named.get("expl")
        elif named.get("status") == "DONE":
            self.factory.done.add(named["task_id"])
        super()._add_task(*arguments, **named)
        if self.fail_fast and named.get("status") == "FAILED" and _told(named.get("expl"))[0] != "NotPublished":
            self._start_phasing_out()

    def _start_phasing_out(self) -> None:
        self.factory.phasing_out = True
        super()._start_phasing_out()


def _ask(url: str) -> None:
    try:
        requests.get(f"{url.rstrip('/')}/api/resource_list", timeout=10)
    except OSError as error:  # Those of requests, and a bundle of certificates that is not there.
        raise UsageError(
            f"--scheduler {url}: no luigid answers there; start one with: "
            "luigid --address 127.0.0.1 --state-path luigid.pickle"
        ) from error
