"""Whatever is removed or made stale: plan, status, tasks and exit code agree on what is done and what is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pipeline
from pipeline.board import answers
from pipeline.datasets import DATASETS, ZONES, dataset_named
from pipeline.lake import planning
from pipeline.marts import marts_of
from pipeline.months import format_month
from pipeline.places import inventory_of, source_of
from pipeline.runs import runner
from pipeline.runs.job import exit_code
from pipeline.sample import SampleSite
from pipeline.settings import RunContext, adopt, adopt_context, current_settings, resolve
from pipeline.state.inventory import Inventory, MonthStatus
from pipeline.state.plan import DatasetPlan, plan_backfill
from pipeline.state.steps import STEPS, steps_left
from pipeline.tasks.base import task_of
from pipeline.tasks.runs import Backfill, missing_tasks

JAN, FEB = date(2024, 1, 1), date(2024, 2, 1)
MONTHS: list[tuple[str, date | None]] = [("green", JAN), ("green", FEB), ("fhv", JAN), ("fhv", FEB), (ZONES.name, None)]
MARTS = tuple(mart.name for mart in marts_of("green"))
#: Of the tables, those whose removal takes records' rows away.
TABLES = ("green", "fhv", "zones", *MARTS)

Step = tuple[str, str, date | None]


@dataclass(frozen=True)
class Change:
    """Something that is deleted or becomes stale without the pipeline."""

    target: str
    which: tuple[str, date | None] = ("green", JAN)

    def apply(self, here: Inventory, database: Path) -> str:
        """Change the lake, or return the statement that changes the database."""
        name, month = self.which
        dataset = dataset_named(name)
        if self.target in ("raw", "sidecar", "trips", "checks"):
            step = "download" if self.target in ("raw", "sidecar") else "conform"
            here.store.delete(here.files(step, dataset, month)[self.target])
        elif self.target == "link":
            folder = Path(here.store.location) / here.files("conform", dataset, month)["trips"]
            if folder.parent.is_dir() and not folder.parent.is_symlink():
                elsewhere = database.parent / "elsewhere" / name / folder.parent.name
                elsewhere.parent.mkdir(parents=True, exist_ok=True)
                folder.parent.rename(elsewhere)
                folder.parent.symlink_to(elsewhere)
        else:
            key = f"dataset = '{name}' AND month IS NOT DISTINCT FROM {_sql(month)}"
            return {
                "load": f"DELETE FROM loads WHERE {key}",
                "mart": f"DELETE FROM mart_loads WHERE mart = '{MARTS[0]}' AND {key}",
                "old load": f"UPDATE loads SET fingerprint = 'older' WHERE {key}",
                "old mart": f"UPDATE mart_loads SET fingerprint = 'older' WHERE mart = '{MARTS[1]}' AND {key}",
            }.get(self.target, f"DROP TABLE IF EXISTS {self.target}")
        return ""


def _apply(changes: Sequence[Change], database: Path) -> None:
    here = inventory_of(current_settings())
    if statements := list(filter(None, [change.apply(here, database) for change in changes])):
        with duckdb.connect(database) as connection:
            for statement in statements:
                connection.execute(statement)
    # Its records are read once if it has not changed for seconds, else for each question.
    os.utime(database, (0, 0))


def _sql(month: date | None) -> str:
    return f"DATE '{month}'" if month else "NULL"


CHANGES = st.one_of(
    st.builds(
        Change,
        st.sampled_from(["raw", "sidecar", "trips", "checks", "link", "load", "mart", "old load", "old mart"]),
        st.sampled_from(MONTHS),
    ),
    st.builds(Change, st.sampled_from(TABLES)),
)


def _adopt(folder: Path, source: str) -> None:
    lake, warehouse, logs = (str(folder / name) for name in ("lake", "warehouse.duckdb", "logs"))
    adopt_context(RunContext(workers=1))
    adopt(resolve(source=source, lake=lake, warehouse=f"duckdb:///{warehouse}", logs=logs, retry_wait_s="0.01"))


def _backfill(through: str) -> Backfill:
    return Backfill(datasets=("green", "fhv"), first=JAN, last=FEB, through=through)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A lake and a warehouse with two months of two datasets, and the published files in a folder."""
    folder = tmp_path_factory.mktemp("plans")
    with SampleSite(rows=50) as site:
        _adopt(folder / "made", site.url)
        assert exit_code(runner.run([_backfill("mart")], workers=1, scheduler_url=None)) == 0
    (folder / "published").mkdir()
    for path in (folder / "made" / "lake" / "raw").rglob("*"):
        if path.is_file() and path.suffix != ".json":
            shutil.copy(path, folder / "published")
    yield folder
    adopt(None)
    adopt_context(None)
    planning._at_work = None


_names = count()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGES, max_size=6), through=st.sampled_from(STEPS))
def test_the_steps_that_are_shown_are_those_that_run(made: Path, changes: list[Change], through: str) -> None:
    folder = made / f"example-{next(_names)}"
    shutil.copytree(made / "made", folder)
    _adopt(folder, str(made / "published"))
    _apply(changes, folder / "warehouse.duckdb")
    left = _left(through)
    statuses = {name: months for name, months in _statuses().items() if name != ZONES.name}
    plans, problems = plan_backfill(source_of(current_settings()), statuses, through, date.today())
    assert problems == []
    assert _planned(plans) == {step for step in left if step[2]}
    assert _on_the_board(through) == left
    assert _of_tasks(_backfill(through)) == left
    assert _by_asking_each_task(through) == left
    first = {(task.step_name, task.dataset, task.month) for task in missing_tasks(_wanted(), through)}  # type: ignore[attr-defined]
    assert {step[1:] for step in first} == {step[1:] for step in left}
    outcomes = runner.run([_backfill(through)], workers=1, scheduler_url=None)
    assert {(of.step, of.dataset, of.month) for of in outcomes} == left
    assert (exit_code(outcomes) == 0) == (not _left(through))
    if not any(change.target == "sidecar" for change in changes):
        assert _left(through) == set()
    if through == "mart" and not _left(through):
        _assert_tables_hold_what_the_records_say(folder / "warehouse.duckdb")
    shutil.rmtree(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGES, max_size=6), through=st.sampled_from(STEPS))
def test_the_preview_on_the_board_has_the_steps_that_the_scheduler_gets(
    made: Path, changes: list[Change], through: str
) -> None:
    folder = made / f"example-{next(_names)}"
    shutil.copytree(made / "made", folder)
    _adopt(folder, str(made / "published"))
    _apply(changes, folder / "warehouse.duckdb")
    assert _on_the_board(through) == _of_tasks(_backfill(through))
    shutil.rmtree(folder)


def _on_the_board(through: str) -> set[Step]:
    """The steps of the months and the zones in the preview of a backfill."""
    preview = answers.plan(["green", "fhv"], "2024-01..2024-02", through)
    assert preview["problems"] == []
    zones: set[Step] = {(step, ZONES.name, None) for step in preview["zones"]}
    return _planned(preview["datasets"]) | zones


def _planned(plans: Sequence[DatasetPlan]) -> set[Step]:
    return {
        (step, plan.dataset, date.fromisoformat(f"{month}-01"))
        for plan in plans
        for step, months in plan.steps.items()
        for month in months
    }


def _assert_tables_hold_what_the_records_say(database: Path) -> None:
    with duckdb.connect(database, read_only=True) as connection:
        loads = connection.execute("SELECT dataset, month, rows FROM loads").fetchall()
        assert {(name, month) for name, month, _ in loads} == set(MONTHS)
        for name, month, rows in loads:
            where = f"WHERE month = {_sql(month)}" if month else ""
            assert connection.execute(f"SELECT COUNT(*) FROM {name} {where}").fetchall() == [(rows,)]
        joined = "FROM mart_loads AS m JOIN loads AS l USING (dataset, month, fingerprint)"
        records = connection.execute(f"SELECT mart, dataset, month, m.rows {joined}").fetchall()
        assert {record[:3] for record in records} == {
            (mart.name, name, month) for name, month in MONTHS for mart in marts_of(name)
        }
        for mart in MARTS:
            found = connection.execute(f"SELECT dataset, month, COUNT(*) FROM {mart} GROUP BY ALL").fetchall()
            assert set(found) == {record[1:] for record in records if record[0] == mart and record[3]}


def _wanted() -> dict[str, list[date]]:
    return {"green": [JAN, FEB], "fhv": [JAN, FEB]}


def _statuses() -> dict[str, list[MonthStatus]]:
    wanted: dict[str, list[date | None]] = {"green": [JAN, FEB], "fhv": [JAN, FEB], ZONES.name: [None]}
    return inventory_of(current_settings()).statuses(wanted, date(2024, 6, 1))


def _left(through: str) -> set[Step]:
    """What the status says is left."""
    return {
        (step, of.dataset, of.month)
        for each in _statuses().values()
        for of in each
        for step in of.missing_steps(through)
    }


def _of_tasks(root: Backfill) -> set[Step]:
    """The tasks that the scheduler would get, as their `complete()` says."""
    return {(task.step_name, task.dataset, task.month) for task in runner._missing(root, {}).values()}


def _by_asking_each_task(through: str) -> set[Step]:
    here = inventory_of(current_settings())
    left = set()
    for name, month in MONTHS:
        wanted = [step for step in STEPS[: STEPS.index(through) + 1] if step != "mart" or month]
        steps = steps_left(lambda step, name=name, month=month: task_of(step, name, month).complete(), wanted)  # type: ignore[misc]
        assert steps == here.left(dataset_named(name), month, through)
        left |= {(step, name, month) for step in steps}
    return left


def test_a_mart_whose_sql_has_changed_is_built_again(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.state import inventory

    _adopt(made / "made", str(made / "published"))
    here, green = inventory_of(current_settings()), DATASETS["green"]
    assert here.done("mart", green, JAN)
    record, load = here.marts(green)[JAN][MARTS[0]], here.loads(green)[JAN]
    mart = inventory.marts_of("green")[0]
    for definition, why in ((None, ""), (mart.definition, ""), ("0" * 16, "built by other SQL than is declared")):
        object.__setattr__(record, "definition", definition)
        assert inventory._why_stale(record, mart, load) == why
        assert here.done("mart", green, JAN) == (not why)
        (status,) = here.statuses({"green": [JAN]}, JAN)["green"]
        assert status.stale == ({"mart": why} if why else {})
        assert status.missing_steps() == (("mart",) if why else ())


def test_a_dropped_table_is_loaded_again_and_the_status_says_so(made: Path) -> None:
    folder = made / "dropped"
    shutil.copytree(made / "made", folder)
    _adopt(folder, str(made / "published"))
    _apply([Change("green")], folder / "warehouse.duckdb")
    wanted = {(step, "green", month) for step in ("load", "mart") for month in (JAN, FEB)}
    assert _left("mart") == wanted
    outcomes = runner.run([_backfill("mart")], workers=1, scheduler_url=None)
    assert {(of.step, of.dataset, of.month) for of in outcomes} == wanted
    assert _left("mart") == set()
    with duckdb.connect(folder / "warehouse.duckdb", read_only=True) as connection:
        assert connection.execute("SELECT COUNT(DISTINCT month) FROM green").fetchall() == [(2,)]


def test_the_zones_are_tasks_of_the_same_classes(made: Path) -> None:
    assert issubclass(pipeline.LoadZones, pipeline.Load)
    assert pipeline.ConformZones().requires() == pipeline.DownloadZones()
    assert format_month(JAN) in str(task_of("load", "green", JAN).output())
