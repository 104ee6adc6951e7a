"""A worker that takes any step of this package that is scheduled at luigid, one at a time, until it is told to stop.

Luigi calls that an assistant. Told to stop by SIGTERM, it ends its step cleanly and gives it back, so that others take
it over at once; killed, luigid notices after `worker_disconnect_delay`. A task that it cannot load, because it is of
another module or another version of this package, is reported to luigid as failed, and the worker goes on.
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

#: Touched whenever the worker looks around; the health check reads its age.
ALIVE = Path("/tmp/alive")  # noqa: S108  (a folder of the container alone)
#: How long a step may take to put its drafts away.
_GRACE_S = 10.0


class _Stop(Exception):
    """The worker was told to stop."""


class Luigid(RemoteScheduler):
    """luigid, of whose work this worker sees only what it can load."""

    refuse: Callable[[dict[str, Any], str], None]

    def get_work(self, **asked: Any) -> Any:
        """The next step; none, if the next one cannot be loaded."""
        work = RemoteScheduler.get_work(self, **asked)
        if work.get("task_id") and (why := _why_not(work)):
            self.refuse(work, why)
            work["task_id"] = None
        return work


def _why_not(work: dict[str, Any]) -> str:
    """Why the task cannot be loaded; empty if it can. A module of anyone else's is not even imported."""
    module = work["task_module"]
    if module != "pipeline" and not str(module).startswith("pipeline.tasks."):
        return f"module {module!r} is not of this package; allowed are pipeline and pipeline.tasks.…"
    try:
        task = load_task(module, work["task_family"], work["task_params"])
    except Exception as error:  # Whatever another version has sent.
        return f"pipeline {pipeline.__version__} cannot load it: {type(error).__name__}: {error}"
    # Luigi's worker takes the id that luigid gave for the one that the task has.
    return "" if task.task_id == work["task_id"] else f"pipeline {pipeline.__version__} calls it {task.task_id}"


class Assistant(Worker):
    """Luigi's worker, which shows that it lives, and stops between two looks once it was told to."""

    stopping = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """The handler of signals; nothing is raised from it, since Python drops that in the hooks of fork."""
        self.stopping = True

    def give_back(self) -> None:
        """End the steps that run, and let luigid give them to others at once."""
        for process in self._running_tasks.values():
            process.terminate()
        for task_id, process in self._running_tasks.items():
            process.join(_GRACE_S)
            if process.is_alive():
                process.kill()
            task = process.task
            # As Luigi reports a failure; luigid takes nothing else for a step that runs. It is then forgiven.
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
            log.info(f"worker: gave {task_id} back")

    def _get_work(self) -> Any:
        self._look()
        return super()._get_work()

    def refuse(self, work: dict[str, Any], why: str) -> None:
        """Report a task that cannot be loaded as failed."""
        log.error(f"worker: refused {work['task_id']}: {why}")
        told = {"family": work["task_family"], "module": work["task_module"], "params": work["task_params"]}
        explanation = json.dumps(f"refused by {self._id}: {why}")
        self._scheduler.add_task(
            worker=self._id, task_id=work["task_id"], status=FAILED, expl=explanation, assistant=True, **told
        )

    def _handle_next_task(self) -> None:
        self._look()
        super()._handle_next_task()

    def _look(self) -> None:
        ALIVE.touch()
        if self.stopping:
            raise _Stop


def main() -> int:
    """0 when told to stop, 1 when luigid is gone, 2 when the settings cannot be."""
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
    log.info(f"worker: of pipeline {pipeline.__version__}, for {url}; lake {settings.lake}")
    # A process for each step, so that its memory goes with it; and no haste while there is nothing to do.
    options = {"force_multiprocessing": True, "wait_interval": 1.0, "wait_jitter": 1.0}
    luigid = Luigid(url)
    with Assistant(scheduler=luigid, worker_processes=1, assistant=True, **options) as worker:
        luigid.refuse = worker.refuse
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, worker.stop)
        try:
            try:
                worker.run()
            except _Stop:
                worker.give_back()
        except RPCError as error:
            log.error(f"worker: {url} does not answer: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
