"""A worker that runs the steps of this package that are scheduled at luigid, one at a time, until SIGTERM.

Luigi calls it an assistant. On SIGTERM it ends its step cleanly and returns it, so that other workers can run it
immediately; luigid notices a killed worker after `worker_disconnect_delay`. A task that the worker cannot load, because
it belongs to another module or version, is reported to luigid as failed, and the worker continues.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from luigi.rpc import RemoteScheduler, RPCError
from luigi.scheduler import FAILED
from luigi.task_register import load_task
from luigi.worker import Worker

import pipeline
from pipeline.errors import UsageError
from pipeline.settings import current_settings
from pipeline.tasks import luigi_options
from pipeline.tasks.base import log

#: Touched in each loop of the worker; the health check reads its age.
ALIVE = Path("/tmp/alive")  # noqa: S108  (the container's own folder)
#: How long a step may take to delete its drafts.
_GRACE_S = 10.0


class _Stop(Exception):
    """The worker received a signal to stop."""


class Luigid(RemoteScheduler):
    """luigid, restricted to the tasks that this worker can load."""

    reject: Callable[[dict[str, Any], str], None]

    def get_work(self, **options: Any) -> Any:
        """The next step; none if it cannot be loaded."""
        work = RemoteScheduler.get_work(self, **options)
        if work.get("task_id") and (problem := _problem(work)):
            self.reject(work, problem)
            work["task_id"] = None
        return work


def _problem(work: dict[str, Any]) -> str:
    """Why the task cannot be loaded; empty if it can. Modules of other packages are not imported."""
    module = work["task_module"]
    if module != "pipeline" and not str(module).startswith("pipeline.tasks."):
        return f"module {module!r} is not part of this package; allowed: pipeline and pipeline.tasks.…"
    try:
        task = load_task(module, work["task_family"], work["task_params"])
    except Exception as error:  # The task may be of another version.
        return f"pipeline {pipeline.__version__} cannot load it: {type(error).__name__}: {error}"
    # Luigi's worker assumes that the task has the id that luigid sent.
    return "" if task.task_id == work["task_id"] else f"pipeline {pipeline.__version__} calls it {task.task_id}"


class Assistant(Worker):
    """Luigi's worker, which touches a file in each loop, and stops there after a signal."""

    stopping = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; it raises nothing, because Python ignores exceptions in the hooks of fork."""
        self.stopping = True

    def return_steps(self) -> None:
        """End the running steps, so that luigid can give them to other workers immediately."""
        for process in self._running_tasks.values():
            process.terminate()
        for task_id, process in self._running_tasks.items():
            process.join(_GRACE_S)
            if process.is_alive():
                process.kill()
            task = process.task
            # Report a failure, the only state that luigid accepts for a running step, and let luigid forget it.
            self._add_task(
                worker=self._id,
                task_id=task_id,
                status=FAILED,
                expl='"stopped"',
                resources=task.process_resources(),
                runnable=None,
                params=task.to_str_params(),
                family=task.task_family,
                module=task.task_module,
                assistant=True,
            )
            self._scheduler.forgive_failures(task_id)
            log.info(f"worker: returned {task_id}")

    def _get_work(self) -> Any:
        self._touch()
        return super()._get_work()

    def reject(self, work: dict[str, Any], problem: str) -> None:
        """Report a task that cannot be loaded as failed."""
        log.error(f"worker: rejected {work['task_id']}: {problem}")
        task = {"family": work["task_family"], "module": work["task_module"], "params": work["task_params"]}
        explanation = json.dumps(f"rejected by {self._id}: {problem}")
        self._scheduler.add_task(
            worker=self._id, task_id=work["task_id"], status=FAILED, expl=explanation, assistant=True, **task
        )

    def _handle_next_task(self) -> None:
        self._touch()
        super()._handle_next_task()

    def _touch(self) -> None:
        ALIVE.touch()
        if self.stopping:
            raise _Stop


def main() -> int:
    """Returns 0 after a signal, 1 if luigid does not answer, 2 if the settings are invalid."""
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [logging.StreamHandler(sys.stdout)]
    logging.getLogger("luigi-interface").setLevel(logging.WARNING)
    luigi_options.prepare_luigi()
    url = os.environ["LUIGI_SCHEDULER_URL"]
    try:
        settings = current_settings()
    except UsageError as error:
        log.error(f"worker: {error}")
        return 2
    log.info(f"worker: pipeline {pipeline.__version__}, luigid {url}, lake {settings.lake}")
    # Each step has its own process, which frees its memory; an idle worker asks luigid every one to two seconds.
    options = {"force_multiprocessing": True, "wait_interval": 1.0, "wait_jitter": 1.0}
    luigid = Luigid(url)
    with Assistant(scheduler=luigid, worker_processes=1, assistant=True, **options) as worker:
        luigid.reject = worker.reject
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, worker.stop)
        try:
            try:
                worker.run()
            except _Stop:
                worker.return_steps()
        except RPCError as error:
            log.error(f"worker: {url} does not answer: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
