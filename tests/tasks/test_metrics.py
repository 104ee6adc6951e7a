"""luigid with docs/luigid.cfg: it starts, knows the limits, and counts steps by dataset for Prometheus."""

from __future__ import annotations

import configparser
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from commands import Luigid, running_luigid
from conftest import ROOT, Folder, make_folder
from prometheus_client.parser import text_string_to_metric_families

from pipeline.sample import SampleSite
from pipeline.tasks.luigi_options import default_options

SAMPLE = ROOT / "docs" / "luigid.cfg"


@pytest.fixture
def own(tmp_path: Path, site: SampleSite) -> Folder:
    return make_folder(tmp_path / "work", site.url)


@pytest.fixture
def luigid(tmp_path: Path, site: SampleSite) -> Iterator[Luigid]:
    """A luigid as docs/luigid.cfg has it, but with delays of a second or two."""
    folder = make_folder(tmp_path / "luigid", site.url)
    text = SAMPLE.read_text(encoding="utf-8")
    for said, short in (("retry_delay = 5", "retry_delay = 1"), ("disconnect_delay = 30", "disconnect_delay = 2")):
        assert f"{said}\n" in text
        text = text.replace(f"{said}\n", f"{short}\n")
    (folder.path / "luigi.cfg").write_text(text)
    with running_luigid(folder) as running:
        yield running


def test_a_killed_workers_step_is_taken_over_after_the_two_delays_not_a_minute_later(
    tmp_path: Path, site: SampleSite, luigid: Luigid
) -> None:
    folder = make_folder(tmp_path / "mine", site.url)
    site.faults.add("fhv_tripdata_2024-01*", "delay", 120)
    command = ("luigi", "--module", "pipeline", "Load", "--dataset", "fhv", "--month", "2024-01", *luigid.options)
    killed = folder.start(*command)
    until = time.monotonic() + 60
    while not any("fhv_tripdata_2024-01" in one.path for one in [*site.requests]):
        assert time.monotonic() < until
        time.sleep(0.05)
    other = folder.start(*command)
    while len(luigid.ask("worker_list", include_running=False)) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    began = time.monotonic()
    said = other.communicate(timeout=90)[1]
    assert "3 ran successfully" in said, said
    assert time.monotonic() - began < 40, "luigid looks once a minute by default"


def counts(luigid: Luigid, metric: str) -> dict[tuple[str, str], float]:
    """The counts of a metric by family and dataset."""
    answer = requests.get(f"http://127.0.0.1:{luigid.port}/metrics", timeout=60)
    assert answer.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.labels["family"], sample.labels["dataset"]): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == metric
    }


def test_finished_steps_are_counted_by_step_and_dataset(own: Folder, luigid: Luigid) -> None:
    span = ("--first", "2024-01", "--last", "2024-02")
    ended = own.luigi("Backfill", "--datasets", "green,fhv", *span, *luigid.options, local=False)
    assert ended.returncode == 0, ended.stderr
    done = counts(luigid, "luigi_task_done_total")
    steps = {(family, name): 2 for name in ("green", "fhv") for family in ("Download", "Conform", "Load", "Mart")}
    zones = {(f"{family}Zones", "None"): 1 for family in ("Download", "Conform", "Load")}
    assert done == {**steps, **zones, ("Backfill", "None"): 1}
    assert counts(luigid, "luigi_task_failed_total") == {}
    assert min(counts(luigid, "luigi_task_execution_time_seconds").values()) >= 0


def test_a_step_that_fails_is_counted_and_tried_twice(own: Folder, luigid: Luigid, site: SampleSite) -> None:
    site.faults.add("*2024-01*", 500, times=math.inf)
    own.environment["PIPELINE_RETRIES"] = "0"
    ended = own.luigi("Download", "--dataset", "fhv", "--month", "2024-01", *luigid.options, local=False)
    assert ended.returncode == 1, ended.stderr
    assert len([request for request in site.requests if "2024-01" in request.path]) == 2
    assert counts(luigid, "luigi_task_failed_total") == {("Download", "fhv"): 1}
    assert counts(luigid, "luigi_task_disabled_total") == {("Download", "fhv"): 1}


def test_the_sample_for_luigid_has_the_limits_and_scheduler_options_of_luigi_cfg() -> None:
    written = configparser.ConfigParser(interpolation=None)
    written.read(SAMPLE, encoding="utf-8")
    assert dict(written["resources"]) == default_options()["resources"]
    ours = default_options()["scheduler"]
    assert {name: written["scheduler"][name] for name in ours if name not in ("retry_count", "retry_delay")} == {
        name: text for name, text in ours.items() if name not in ("retry_count", "retry_delay")
    }
