"""Run tasks with Luigi, and return the outcome of each step."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import luigi
import requests
from luigi.configuration import get_config
from luigi.rpc import RemoteScheduler, RPCError
from luigi.worker import TaskStatusReporter, Worker

from pipeline.errors import NotPublished, PipelineError, UsageError, redact
from pipeline.lake.planning import work_was_done
from pipeline.places import inventory_of
from pipeline.runs.events import Outcome
from pipeline.runs.scheduler import StepScheduler
from pipeline.runs.stopping import stoppable
from pipeline.settings import current_settings, run_context
from pipeline.tasks.base import Step
from pipeline.tasks.messages import step_error
from pipeline.tasks.process import StepProcess

_FAILED = ("FAILED", "DISABLED")
_RETRY_S = 1.0


def run(
    roots: Sequence[luigi.Task],
    *,
    workers: int,
    scheduler_url: str | None,
    on_tick: Callable[[], None] = lambda: None,
    fail_fast: bool = False,
) -> list[Outcome]:
    """Run the tasks with everything that they require; returns the outcome of each step that was missing.

    `on_tick` is called in this thread several times a second, because no other thread may run while it forks. With
    `fail_fast` no further step is started after the first failure; running steps are finished.

    Raises:
        UsageError: luigid does not answer.
        Stopped: SIGINT or SIGTERM arrived; every child has ended.
    """
    if scheduler_url:
        luigid_resources(scheduler_url)
    steps: dict[str, Step] = {}
    for root in roots:
        _missing(root, steps)
    factory = _Factory(on_tick, fail_fast)
    with stoppable():
        try:
            known, done = _build(roots, steps, factory, workers, scheduler_url or "")
        except KeyboardInterrupt:
            children = multiprocessing.active_children()
            for child in children:
                child.terminate()
            for child in children:
                child.join()
            raise
    on_tick()
    return [_outcome(step, known.get(step.task_id, {}), done, factory) for step in steps.values()]


def configured_scheduler() -> str:
    """The address of luigid in luigi.cfg; empty if there is none."""
    return str(get_config().get("core", "scheduler_url", "")).strip()


def luigid_resources(url: str) -> set[str]:
    """The names of the resources that luigid limits.

    Raises:
        UsageError: there is no luigid at this address.
    """
    try:
        answer = requests.get(f"{url.rstrip('/')}/api/resource_list", timeout=10)
        return {str(resource["name"]) for resource in answer.json()["response"]}
    except (OSError, ValueError, KeyError, TypeError) as error:  # OSError is the base of the errors of requests.
        raise UsageError(
            f"{redact(url)}: no luigid answers at this address; start one with: "
            "luigid --address 127.0.0.1 --state-path luigid.pickle"
        ) from error


def _build(
    roots: Sequence[luigi.Task], steps: dict[str, Step], factory: _Factory, workers: int, scheduler_url: str
) -> tuple[dict[str, Any], set[str]]:
    """Run the tasks; returns the scheduler's final information about them, and the ids of the steps that are done."""
    verbose = logging.getLogger("luigi-interface").level == logging.INFO
    left = len(steps) + 1
    while True:
        known: dict[str, Any] = {}
        try:
            try:
                luigi.build(
                    list(roots),
                    worker_scheduler_factory=factory,
                    workers=workers,
                    local_scheduler=not scheduler_url,
                    scheduler_url=scheduler_url,
                    log_level="INFO" if verbose else "CRITICAL",
                )
            except PipelineError:  # For its summary, Luigi asks again what is done; the server may be gone by then.
                if factory.worker is None:
                    raise
            known = factory.scheduler.task_list("", "", limit=False)
        except RPCError:
            factory.away = f"luigid at {scheduler_url} does not answer any more"
        # A step that was done here counts, even if another run is about to replace its result.
        done = factory.done | _done(steps.values(), known)
        # A restarted luigid has lost the remaining steps: submit them again as long as that makes progress.
        lost = [
            id for id in steps.keys() - done if known.get(id, {}).get("status") not in ("PENDING", "RUNNING", *_FAILED)
        ]
        stopping = factory.away or factory.worker._stop_requesting_work
        if not scheduler_url or stopping or not 0 < len(lost) < left:
            return known, done
        left = len(lost)


def _done(steps: Collection[Step], known: Mapping[str, Any]) -> set[str]:
    """The ids of the steps that are done, by one inventory."""
    work_was_done()
    try:
        inventory = inventory_of(current_settings())
        # A user's own task may have another target, and the zones may have to be loaded again.
        ours = [step for step in steps if step.step_name == step.row and step.month]
        others = [step for step in steps if step not in ours and step.complete()]
        return {
            step.task_id
            for step in (*others, *(step for step in ours if inventory.done(step.row, step.spec, step.month)))
        }
    except PipelineError:  # Lake or warehouse do not answer any more; then the scheduler decides.
        return {step.task_id for step in steps if known.get(step.task_id, {}).get("status") == "DONE"}


def _missing(task: luigi.Task, seen: dict[str, Step]) -> dict[str, Step]:
    """Add the task, if it is an incomplete step, and the incomplete steps that it needs, by id."""
    is_step = isinstance(task, Step)
    if task.task_id not in seen and not (is_step and task.complete()):
        for needed in luigi.task.flatten(task.requires()):
            _missing(needed, seen)
        if is_step:
            seen[task.task_id] = task
    return seen


def _outcome(step: Step, known: dict[str, Any], done: set[str], factory: _Factory) -> Outcome:
    id, status = step.task_id, known.get("status", "UNKNOWN")
    error, why = None, ""
    if id in done:
        status = "DONE"
    elif id in factory.failures:
        status, error = "FAILED", step_error(step.subject, factory.failures[id])
    elif status in _FAILED:
        error = step_error(step.subject, factory.scheduler.fetch_error(id).get("error"))
    else:  # What luigid calls DONE was done in another lake or warehouse.
        status, why = "PENDING" if status == "DONE" else status, factory.away
    began, ended = known.get("time_running"), known.get("last_updated")
    seconds = ended - began if began and ended else 0.0
    return Outcome(step.step_name, step.spec.name, step.month, status, seconds, error, why)


class _Factory:
    """Creates scheduler and worker for Luigi; keeps the scheduler, which knows the state of each task."""

    def __init__(self, on_tick: Callable[[], None], fail_fast: bool) -> None:
        self.on_tick, self.fail_fast = on_tick, fail_fast
        self.scheduler: Any = None
        self.worker: Any = None
        #: Why the scheduler cannot be asked any more.
        self.away = ""
        self.done: set[str] = set()
        #: By task: the explanation of its last failure in this run.
        self.failures: dict[str, str | None] = {}

    def create_local_scheduler(self) -> Any:
        self.scheduler = StepScheduler()
        return self.scheduler

    def create_remote_scheduler(self, url: str) -> Any:
        if self.scheduler is None:
            self.scheduler = _Luigid(url)
            # Plain `luigid` holds back a failed step for a while; a new run means that the cause is fixed. For the
            # board's luigid it is enough to submit the step again.
            for task_id in self.scheduler.task_list("DISABLED", "", limit=False):
                self.scheduler.re_enable_task(task_id)
        return self.scheduler

    def create_worker(self, scheduler: Any, worker_processes: int, assistant: bool = False) -> Any:
        try:
            self.worker = _Worker(
                scheduler=scheduler,
                worker_processes=worker_processes,
                assistant=assistant,
                # Also with one worker: this process reads the events of a step while it runs.
                force_multiprocessing=bool(run_context().reports),
            )
        except (OSError, ImportError) as error:
            raise UsageError(f"processes cannot share a lock: {error}; make /dev/shm a writable file system") from error
        self.worker.factory = self
        return self.worker


class _Luigid(RemoteScheduler):
    """A luigid that may be away for as long as `[core]` rpc_retry_attempts and rpc_retry_wait say.

    Luigi's own class waits that long for every call, even those that only show progress, and after it has given up.
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
            time.sleep(_RETRY_S)


class _Worker(Worker):
    """Luigi's worker, with a tick whenever it waits for a step, and with processes that can run several steps."""

    factory: _Factory

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._idle: list[StepProcess] = []

    def __exit__(self, *error: Any) -> bool:
        for process in self._idle:
            process.dismiss()
        return bool(super().__exit__(*error))

    def _create_task_process(self, task: Any) -> StepProcess:
        config = self._config
        return StepProcess(
            self._idle,
            config.task_process_context,
            task,
            self._id,
            self._task_result_queue,
            TaskStatusReporter(self._scheduler, task.task_id, self._id, None),
            use_multiprocessing=config.force_multiprocessing or self.worker_processes > 1,
            worker_timeout=config.timeout,
            check_unfulfilled_deps=config.check_unfulfilled_deps,
            check_complete_on_run=config.check_complete_on_run,
            task_completion_cache=self._task_completion_cache,
        )

    def _handle_next_task(self) -> None:
        super()._handle_next_task()
        self.factory.on_tick()

    def _add_task(self, *arguments: Any, **named: Any) -> None:
        # Luigi's worker handles the results of all steps here, and only here.
        if named.get("status") == "FAILED":
            self.factory.failures[named["task_id"]] = named.get("expl")
        elif named.get("status") == "DONE":
            self.factory.done.add(named["task_id"])
        if process := self._running_tasks.get(named["task_id"]):
            self._idle.append(process)
        super()._add_task(*arguments, **named)
        failed = self.factory.fail_fast and named.get("status") == "FAILED"
        if failed and not isinstance(step_error("", named.get("expl")), NotPublished):
            self._start_phasing_out()
