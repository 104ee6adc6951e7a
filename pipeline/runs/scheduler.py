"""Luigi's scheduler, with this package's rule for steps that failed.

Promise: a step that failed is FAILED, and is not tried again until a run submits it again, or until it is released in
the visualiser ("Forgive failures"), because the step itself has retried its requests. A step whose worker died is given
to another worker. Luigi itself can only do both by a number of attempts, after which a step is DISABLED for everyone.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
from pathlib import Path
from typing import Any, ClassVar

from luigi.scheduler import UPSTREAM_DISABLED, UPSTREAM_FAILED, Scheduler, SimpleTaskState
from luigi.task_status import BATCH_RUNNING, FAILED, PENDING, RUNNING

#: After so many dead workers, a step counts as failed: it probably kills them, as one that needs too much memory does.
_DEAD_WORKERS = 3
#: In Luigi, a worker waits for FAILED steps, and for those that need them, but not for DISABLED ones.
_UPSTREAM = {UPSTREAM_FAILED: UPSTREAM_DISABLED, UPSTREAM_DISABLED: "none"}


log = logging.getLogger("luigi-interface.pipeline")


class StepScheduler(Scheduler):
    """Options are those of `[scheduler]`, and override luigi.cfg."""

    def __init__(self, **options: Any) -> None:
        # A negative delay is "never"; that many attempts are Luigi's default.
        never = {"retry_delay": -1.0, "retry_count": 999_999_999, "disable_hard_timeout": 999_999_999}
        super().__init__(record_task_history=False, prune_on_get_work=True, **never, **options)
        state = _State(self._config.state_path)
        state._metrics_collector = self._state._metrics_collector
        self._state: Any = state

    def _generate_retry_policy(self, task_retry_policy_dict: dict[str, Any]) -> Any:
        return self._config._get_retry_policy()

    def _upstream_status(self, task_id: str, upstream_status_table: dict[str, str]) -> str:
        status: str = super()._upstream_status(task_id, upstream_status_table)
        return UPSTREAM_DISABLED if status == UPSTREAM_FAILED else status

    def task_list(self, status: str = "", upstream_status: str = "", **options: Any) -> Any:
        """The tasks by id; what needs a failed step has the upstream status UPSTREAM_FAILED, as in Luigi."""
        return super().task_list(status, _UPSTREAM.get(upstream_status, upstream_status), **options)


class _State(SimpleTaskState):
    """The tasks and workers, in a file that is replaced as a whole, and that can contain nothing else."""

    def dump(self) -> None:
        draft = Path(f"{self._state_path}.part")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                pickle.dump(self.get_state(), file)
            draft.replace(self._state_path)
        except OSError as error:
            log.warning(f"luigid cannot save its state: {error}")

    def load(self) -> None:
        try:
            with Path(self._state_path).open("rb") as file:
                tasks, workers, *more = _Unpickler(file).load()
            statuses = [(task.status, task.id, task) for task in tasks.values()]
            for worker in workers.values():
                worker.last_active = time.time()  # It had no luigid to report to.
        except FileNotFoundError:
            return
        except Exception as error:  # Pickle raises any; what is done is read from lake and warehouse.
            log.warning(f"luigid starts without its state: {self._state_path}: {type(error).__name__}: {error}")
            return
        self.set_state((tasks, workers, *more))
        for status, task_id, task in statuses:
            self._status_tasks[status][task_id] = task

    def fail_dead_worker_task(self, task: Any, config: Any, assistants: set[str]) -> None:
        running = task.status in (RUNNING, BATCH_RUNNING) and task.worker_running
        if not running or task.worker_running in task.stakeholders | assistants:
            return
        dead = task.dead_workers = [*getattr(task, "dead_workers", []), task.worker_running]
        task.worker_running = None
        if len(dead) < _DEAD_WORKERS:
            self.set_status(task, PENDING, config)
            return
        task.expl = json.dumps(f"{len(dead)} workers died or lost their connection during this step: {', '.join(dead)}")
        task.dead_workers = []
        self.set_status(task, FAILED, config)


class _Unpickler(pickle.Unpickler):
    """Reads the state, but no other object, because a pickle from elsewhere could run any code."""

    _TYPES: ClassVar = {
        "luigi.scheduler": {"Task", "Worker", "OrderedSet", "RetryPolicy"},
        "luigi.parameter": {"ParameterVisibility"},
        "collections": {"deque"},
        "builtins": {"set"},
    }

    def find_class(self, module: str, name: str) -> Any:
        if name not in self._TYPES.get(module, ()):
            raise pickle.UnpicklingError(f"it contains {module}.{name}")
        return super().find_class(module, name)
