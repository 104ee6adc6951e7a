"""A failed step waits for the next run; the step of a dead worker is given to another one."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from conftest import make_folder

from pipeline.runs.scheduler import StepScheduler
from pipeline.sample import SampleSite

_GONE_S = 0.05


def _scheduler() -> StepScheduler:
    return StepScheduler(worker_disconnect_delay=_GONE_S, stable_done_cooldown_secs=0)


def _submit(scheduler: StepScheduler, worker: str) -> None:
    """What a worker says at the start of a run of two steps."""
    scheduler.add_task(worker=worker, task_id="load", deps=["conform"], family="Load")
    scheduler.add_task(worker=worker, task_id="conform", family="Conform", resources={"cpu": 1})


def _fail(scheduler: StepScheduler, worker: str) -> None:
    scheduler.add_task(worker=worker, task_id="conform", family="Conform", status="FAILED", expl='"a reason"')


def _work(scheduler: StepScheduler, worker: str) -> Any:
    return scheduler.get_work(worker=worker, host="here")


def _status(scheduler: StepScheduler, task_id: str = "conform") -> str:
    return str(scheduler.task_list("", "")[task_id]["status"])


def _die(scheduler: StepScheduler) -> None:
    time.sleep(2 * _GONE_S)
    scheduler.prune()


def test_a_failed_step_is_shown_as_failed_and_not_tried_again_in_its_run() -> None:
    scheduler = _scheduler()
    _submit(scheduler, "one")
    assert _work(scheduler, "one")["task_id"] == "conform"
    _fail(scheduler, "one")
    work = _work(scheduler, "one")
    assert (work["task_id"], work["n_pending_tasks"]) == (None, 0), "the worker does not wait for it"
    assert list(scheduler.task_list("FAILED", "")) == ["conform"]
    assert list(scheduler.task_list("DISABLED", "")) == []
    assert list(scheduler.task_list("PENDING", "UPSTREAM_FAILED")) == ["load"]
    assert list(scheduler.task_list("PENDING", "UPSTREAM_DISABLED")) == []
    assert scheduler.fetch_error("conform")["error"] == '"a reason"'


def test_the_next_run_tries_a_failed_step_again_immediately_however_often_it_failed() -> None:
    scheduler = _scheduler()
    for number in range(6):
        _submit(scheduler, f"run {number}")
        assert _work(scheduler, f"run {number}")["task_id"] == "conform"
        _fail(scheduler, f"run {number}")
    assert _status(scheduler) == "FAILED"


def test_a_failed_step_can_be_released_in_the_visualiser() -> None:
    scheduler = _scheduler()
    _submit(scheduler, "one")
    _work(scheduler, "one")
    _fail(scheduler, "one")
    assert scheduler.forgive_failures("conform")["status"] == "PENDING"
    assert _work(scheduler, "one")["task_id"] == "conform"


def test_a_step_whose_worker_died_is_given_to_another_one_but_a_third_death_is_a_failure() -> None:
    scheduler = _scheduler()
    for worker in ("one", "two"):
        _submit(scheduler, worker)
        assert _work(scheduler, worker)["task_id"] == "conform"
        _die(scheduler)
        assert _status(scheduler) == "PENDING"
    _submit(scheduler, "three")
    assert _work(scheduler, "three")["task_id"] == "conform"
    _die(scheduler)
    assert _status(scheduler) == "FAILED"
    assert "one, two, three" in json.loads(scheduler.fetch_error("conform")["error"])
    _submit(scheduler, "four")
    assert _work(scheduler, "four")["task_id"] == "conform", "the next run tries again"
    _die(scheduler)
    assert _status(scheduler) == "PENDING", "and has as many attempts as the first"


def test_a_run_that_outlasts_luigis_delays_does_not_try_a_failed_step_again(site: SampleSite, tmp_path: Any) -> None:
    site.faults.add("green_tripdata_2024-02*", 500, times=math.inf)
    site.faults.add("green_tripdata_2024-01*", "delay", 5)
    folder = make_folder(tmp_path / "work", site.url)
    folder.environment["PIPELINE_RETRIES"] = "0"
    luigi_cfg = folder.path / "luigi.cfg"
    luigi_cfg.write_text(luigi_cfg.read_text().replace("disable_persist = 300", "disable_persist = 1"))
    ended = folder.pipeline("backfill", "green", "2024-01..2024-02", "--workers", "2")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert len([request for request in site.requests if "green_tripdata_2024-02" in request.path]) == 1
