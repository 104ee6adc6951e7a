"""The process that answers the board's questions, as a real process, about real months."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Folder, make_folder
from state import rows

from pipeline.board import answers
from pipeline.board.answers import QUESTIONS
from pipeline.board.questions import Questions
from pipeline.errors import PipelineError, UnexpectedError, UsageError
from pipeline.marts import marts_of
from pipeline.runs.history import History
from pipeline.sample import SampleSite
from pipeline.settings import RunContext, Settings, adopt, adopt_context, resolve
from pipeline.version import __version__

_PATIENCE_S = 60


@pytest.fixture(scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory, shared_site: SampleSite) -> Folder:
    folder = make_folder(tmp_path_factory.mktemp("answers") / "work", shared_site.url)
    ended = folder.pipeline("backfill", "green", "2024-01..2024-02")
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def filled(_filled: Folder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """Green 2024-01 and 2024-02, complete, for tests that change nothing."""
    monkeypatch.chdir(_filled.path)
    adopt_context(RunContext())
    yield _filled
    adopt(None)
    adopt_context(None)


@pytest.fixture
def own(filled: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A copy of it, for tests that change something."""
    shutil.copytree(filled.path, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return Folder(tmp_path / "work", filled.source)


def asking(folder: Folder, ask: Callable[[Questions], Awaitable[Any]], **options: Any) -> Any:
    """The result of `ask`, whose questions are about the folder."""
    settings = options.pop("settings", None) or resolve(source=folder.source, retry_wait_s="0.05")

    async def run() -> Any:
        questions = Questions(settings, **options)
        try:
            return await ask(questions)
        finally:
            await questions.close()
            assert questions.process_id is None

    return asyncio.run(run())


def answer(folder: Folder, question: str, **arguments: Any) -> Any:
    return asking(folder, lambda questions: questions.ask(question, **arguments))


def as_json(folder: Folder, *command: str) -> Any:
    ended = folder.pipeline(*command, "--json")
    return json.loads(ended.stdout)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(_PATIENCE_S * 50):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("waited in vain")


def is_gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_status_is_what_the_command_prints(filled: Folder) -> None:
    result = answer(filled, "status")
    document, printed = result["document"], as_json(filled, "status")
    assert document.pop("as_of") >= printed.pop("as_of")[:10]
    assert printed.pop("version") == __version__  # Pages have it at their foot.
    assert document == printed
    files = [path for path in filled.lake.rglob("*.parquet") if "zones" not in path.parts]
    kept = {part: sum(path.stat().st_size for path in files if part in path.parts) for part in ("raw", "trips")}
    totals = document["totals"]
    assert (totals["raw_bytes"], totals["trips_bytes"]) == (kept["raw"], kept["trips"])
    assert totals["warehouse_bytes"] == filled.database.stat().st_size
    assert result["marks"]["complete"] == {"sign": "✓", "meaning": "complete"}
    assert {mark for each in document["datasets"] for mark in each["marks"]} <= set(result["marks"])
    assert [step["name"] for step in result["steps"]] == ["download", "conform", "load", "mart"]


def test_a_month_has_its_steps_files_source_rows_and_runs(filled: Folder) -> None:
    month = answer(filled, "month", dataset="green", month="2024-02")
    steps = ("download", "conform", "load", "mart")
    assert [step["name"] for step in month["steps"] if month["status"][step["stage"]]] == [*steps]
    for step in month["steps"]:
        for file in step["files"]:
            assert Path(file["uri"]).stat().st_size == file["bytes"]
            assert file["modified"]
        assert step["at"]
    assert month["source"]["url"] == f"{filled.source}/trip-data/green_tripdata_2024-02.parquet"
    assert len(month["source"]["sha256"]) == 64
    assert (month["status"]["rows"], month["published_rows"], month["steps"][2]["rows"]) == (2000, 2000, 2000)
    assert month["steps"][3]["marts"] == {
        mart: rows(filled.database, f"SELECT COUNT(*) FROM {mart} WHERE month = DATE '2024-02-01'")[0][0]
        for mart in sorted(mart.name for mart in marts_of("green"))
    }
    (run,) = History(str(filled.path / "data/logs")).runs()
    assert {step["name"]: (step["run"]["run"], step["run"]["state"]) for step in month["steps"]} == dict.fromkeys(
        steps, (run.id, "done")
    )
    assert month["comparison"] == as_json(filled, "check", "green", "2024-02")[0]
    assert month["diff"] == as_json(filled, "diff", "green", "2024-02")
    assert month["profile"]["months_before"] == ["2024-01"]
    pickup = next(column for column in month["profile"]["columns"] if column["column"] == "pickup_datetime")
    assert pickup["min"].startswith("2024-0")
    assert (pickup["nulls"], pickup["share"], len(pickup["before"])) == (0, 0, 1)
    assert month["problems"] == []


def test_the_zones_and_a_month_of_which_nothing_exists_have_answers(filled: Folder) -> None:
    zones = answer(filled, "month", dataset="zones", month=None)
    assert (zones["month"], zones["status"]["rows"], zones["status"]["stage"]) == (None, 265, "complete")
    assert [step["name"] for step in zones["steps"] if step["run"]] == ["download", "conform", "load"]
    nothing = answer(filled, "month", dataset="green", month="2023-06")
    assert nothing["status"]["stage"] == "missing"
    assert not any(step["run"] or step["files"] or step["at"] for step in nothing["steps"])
    assert nothing["published_rows"] == 65_550
    unknown = ("source", "comparison", "profile", "diff")
    assert {name: nothing[name] for name in unknown} == dict.fromkeys(unknown)
    assert (nothing["status"]["rows"], nothing["status"]["failure"]) == (None, None)
    future = answer(filled, "month", dataset="green", month="2099-01")
    assert [command["word"] for command in future["commands"]] == ["describe"]


def test_every_command_of_a_month_works_in_its_state(own: Folder) -> None:
    (own.database.parent / "old.sql").write_text("UPDATE loads SET fingerprint = 'old' WHERE month = DATE '2024-01-01'")
    code = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute(open(sys.argv[2]).read())"
    subprocess.run([sys.executable, "-c", code, str(own.database), str(own.database.parent / "old.sql")], check=True)
    words = []
    for month in ("2024-01", "2024-02", "2024-03", None):
        dataset = "green" if month else "zones"
        for command in answer(own, "month", dataset=dataset, month=month)["commands"]:
            words.append((month, command["word"]))
            if command["word"] == "redo" and month != "2024-02":  # It differs in nothing.
                continue
            line = command["command"] + (" --yes" if command["word"] == "redo" else "")
            ended = own.run(*shlex.split(line))
            assert ended.returncode == 0, (line, ended.stderr)
    usual = ["redo"] * 4 + ["check", "logs", "head", "sql", "describe"]
    # Its mart is of an older load, and so is not done: a backfill builds it.
    assert [word for month, word in words if month == "2024-01"] == ["backfill", "refresh", *usual[1:]]
    assert [word for month, word in words if month == "2024-02"] == [*usual[:5], "diff", *usual[5:]]
    assert [word for month, word in words if month == "2024-03"] == ["backfill", "describe"]
    assert [word for month, word in words if month is None] == [*usual[1:4], "check", "logs", "head", "sql", "describe"]


def test_a_month_whose_last_run_failed_says_why(own: Folder) -> None:
    (own.path / "empty").mkdir()
    assert own.pipeline("backfill", "green", "2024-03", "--source", "empty").returncode == 1
    month = answer(own, "month", dataset="green", month="2024-03")
    assert month["status"]["mark"] == "failed"
    step, _, error = month["status"]["failure"]
    assert (step, [each["run"] and each["run"]["state"] for each in month["steps"]]) == (
        "download",
        ["failed", *[None] * 3],
    )
    assert "green 2024-03" in error


def test_a_part_that_cannot_be_read_is_a_problem_of_a_month_that_is_shown(own: Folder) -> None:
    (own.lake / "checks/green/2024-02.json").write_text("{}")
    (own.lake / "raw/green/green_tripdata_2024-02.parquet.json").write_text("no sidecar")
    month = answer(own, "month", dataset="green", month="2024-02")
    assert (month["source"], month["comparison"], month["profile"]) == (None, None, None)
    assert len(month["problems"]) == 2
    assert month["status"]["rows"] == 2000


def test_diff_plan_and_refresh_are_what_the_commands_print(filled: Folder) -> None:
    async def ask(questions: Questions) -> Any:
        return await asyncio.gather(
            questions.ask("diff", dataset="green", month="2024-02", against="2024-01"),
            questions.ask("plan", datasets=["green", "fhv"], period="2024-01..2024-04", through="load"),
            questions.ask("refresh", datasets=["green"], period="2024-01..2024-03"),
        )

    diff, plan, refresh = asking(filled, ask)
    assert diff == as_json(filled, "diff", "green", "2024-02", "--against", "2024-01")
    printed = as_json(filled, "plan", "green", "fhv", "2024-01..2024-04", "--through", "load")
    assert printed.pop("version") == __version__
    assert {name: plan[name] for name in printed} == printed
    assert plan["marks"]["green"] == {"complete": ["2024-01", "2024-02"], "missing": ["2024-03", "2024-04"]}
    assert plan["space"]["is_enough"]
    assert plan["space"]["needed"] == sum(each["bytes_to_keep"] for each in plan["datasets"])
    printed = as_json(filled, "refresh", "green", "2024-01..2024-03")
    assert {**refresh, "applied": False, "errors": []} == {**printed, "not_counted": ""}
    assert [finding["finding"] for finding in refresh["findings"]] == ["new"]


def test_what_is_out_of_date_is_left_by_a_backfill_and_the_plan_says_so(own: Folder) -> None:
    raw = own.lake / "raw/green/green_tripdata_2024-01.parquet.json"
    raw.write_text(raw.read_text().replace(json.loads(raw.read_text())["sha256"], "0" * 64))
    plan = answer(own, "plan", datasets=["green"], period="2024-01..2024-03")
    assert plan["left"] == {"green": ["2024-01"]}
    assert plan["marks"]["green"] == {"stale": ["2024-01"], "complete": ["2024-02"], "missing": ["2024-03"]}


def test_deletions_name_what_a_redo_deletes_and_delete_nothing(own: Folder) -> None:
    before = own.files()
    deleted = answer(own, "deletions", datasets=["green"], period="2024-01..2024-03", step="conform")
    assert [(each["month"], each["rows"], len(each["marts"])) for each in deleted["months"]] == [
        ("2024-01", 2000, len(marts_of("green"))),
        ("2024-02", 2000, len(marts_of("green"))),
    ]
    assert (deleted["rows"], deleted["marts"]) == (4000, 2 * len(marts_of("green")))
    assert own.files() == before
    files = [own.lake / file["key"] for each in deleted["months"] for file in each["files"]]
    assert deleted["bytes"] == sum(file.stat().st_size for file in files)
    zones = answer(own, "deletions", datasets=["zones"], period=None, step="conform")
    assert [file["type"] for file in zones["months"][0]["files"]] == ["trips", "checks"]


def test_rows_are_the_first_ones_of_the_trips_as_texts(filled: Folder) -> None:
    shown = answer(filled, "rows", dataset="green", month="2024-01")
    names = [column["name"] for column in shown["columns"]]
    ended = filled.pipeline("head", "green", "2024-01", "--rows", "10", "--json")
    printed = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [row[names.index("pickup_datetime")] for row in shown["rows"]] == [
        row["pickup_datetime"].replace("T", " ") for row in printed
    ]
    assert (len(shown["rows"]), shown["total"]) == (10, 2000)
    assert all(isinstance(value, str) or value is None for row in shown["rows"] for value in row)
    distance = next(column for column in shown["columns"] if column["name"] == "trip_distance")
    assert (distance["type"], distance["unit"]) == ("double", "miles")
    assert answer(filled, "rows", dataset="zones", month=None)["total"] == 265


def test_the_series_of_the_pictures_are_those_of_the_marts_and_the_trips(filled: Folder) -> None:
    shown = answer(filled, "marts", dataset="green", month="2024-01")
    days = rows(filled.database, "SELECT day, trips FROM daily_trips WHERE month = DATE '2024-01-01' ORDER BY 1")
    assert [(day["day"], day["trips"]) for day in shown["daily_trips"]["data"]] == [(str(day), n) for day, n in days]
    zones = shown["monthly_zone_revenue"]["data"]
    assert len(zones) == 10
    assert zones[0]["pickup_zone"]
    assert [zone["total_amount"] for zone in zones] == sorted((z["total_amount"] for z in zones), reverse=True)
    where = (
        "WHERE month = DATE '2024-01-01' AND pickup_datetime >= DATE '2024-01-01' AND pickup_datetime < '2024-02-01'"
    )
    counted = rows(
        filled.database,
        f"SELECT isodow(pickup_datetime) - 1, hour(pickup_datetime), COUNT(*) FROM green {where} GROUP BY ALL",
    )
    hours = shown["hours_of_week"]["data"]
    assert (len(hours), {len(day) for day in hours}) == (7, {24})
    assert {(day, hour): hours[day][hour] for day in range(7) for hour in range(24) if hours[day][hour]} == {
        (day, hour): count for day, hour, count in counted
    }


def test_a_picture_without_data_has_a_reason(filled: Folder) -> None:
    shown = answer(filled, "marts", dataset="green", month="2024-03")
    assert {name: each["data"] for name, each in shown.items()} == dict.fromkeys(shown)
    assert "the mart daily_trips is not built; run: pipeline backfill green 2024-03" in shown["daily_trips"]["reason"]
    assert "no trips file" in shown["hours_of_week"]["reason"]
    assert answer(filled, "marts", dataset="fhv", month="2024-01")["daily_trips"]["reason"].startswith("fhv does not")


def test_questions_are_answered_while_another_process_has_the_warehouse(filled: Folder) -> None:
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(filled.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline()

        async def ask(questions: Questions) -> Any:
            status, month, marts = await asyncio.gather(
                questions.ask("status"),
                questions.ask("month", dataset="green", month="2024-01"),
                questions.ask("marts", dataset="green", month="2024-01"),
            )
            return status, month, marts

        status, month, marts = asking(filled, ask)
    finally:
        holder.communicate()
    green = next(each for each in status["document"]["datasets"] if each["dataset"] == "green")
    assert green["marks"]["complete"] == 2
    assert month["status"]["stage"] == "complete"
    assert "is held by" in marts["daily_trips"]["reason"]
    assert f"PID {holder.pid}" in marts["daily_trips"]["reason"]
    assert sum(map(sum, marts["hours_of_week"]["data"])) > 1_900


@pytest.mark.parametrize(("configured_s", "waits_s"), [(600, 10), (0.5, 0.5)])
def test_a_page_waits_for_a_lock_for_10_seconds_at_most(configured_s: float, waits_s: float) -> None:
    assert answers._impatient(Settings(lock_timeout_s=configured_s)).lock_timeout_s == waits_s


@pytest.mark.parametrize(
    ("question", "arguments", "message"),
    [
        ("nothing", {}, "no question is called 'nothing'"),
        ("month", {"dataset": "grey", "month": "2024-01"}, "did you mean green?"),
        ("month", {"dataset": "green", "month": "2024-13"}, "months are 01 to 12"),
        ("month", {"dataset": "green", "month": None}, "green None"),
        ("month", {"dataset": "zones", "month": "2024-01"}, "zones without one"),
        ("diff", {"dataset": "green", "month": "2024-01", "against": "2024-01"}, "another month"),
        ("plan", {"datasets": ["green"], "period": "2024-02..2024-01"}, "ends before it starts"),
        ("plan", {"datasets": ["green"], "period": "2024", "through": "../etc"}, "allowed are download, conform"),
        ("deletions", {"datasets": ["green"], "period": "2024", "step": "all"}, "allowed are download, conform"),
        ("rows", {"dataset": "../../etc/passwd", "month": "2024-01"}, "no dataset is called"),
        ("marts", {"dataset": "green", "month": "2024-01' OR 1=1"}, "is not a month"),
    ],
)
def test_an_invalid_question_has_an_error_that_says_what_is_allowed(
    filled: Folder, question: str, arguments: dict[str, Any], message: str
) -> None:
    async def ask(questions: Questions) -> None:
        with pytest.raises(UsageError, match=message):
            await questions.ask(question, **arguments)
        process = questions.process_id
        await questions.ask("diff", dataset="green", month="2024-02")
        assert questions.process_id == process

    asking(filled, ask)


def test_an_unexpected_exception_is_an_error_with_its_class_and_its_traceback_is_on_stderr(
    filled: Folder, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnexpectedError, match="unexpected keyword argument 'colour'") as raised:
        answer(filled, "status", colour="red")
    assert raised.value.kind == "TypeError"
    assert "Traceback" in capfd.readouterr().err
    with pytest.raises(UsageError):
        answer(filled, "month", dataset="grey", month="2024-01")
    assert capfd.readouterr().err == ""


def test_settings_that_have_become_invalid_are_the_error_of_a_question(own: Folder) -> None:
    (own.path / "published").mkdir()
    settings = resolve(source="published")
    (own.path / "published").rmdir()

    async def ask(questions: Questions) -> None:
        with pytest.raises(UsageError, match="there is no such folder"):
            await questions.ask("status")
        (own.path / "published").mkdir()
        await until(lambda: questions.process_id is None)
        assert (await questions.ask("status"))["document"]

    asking(own, ask, settings=settings)


def test_a_process_that_dies_fails_the_questions_in_flight_and_the_next_starts_another(filled: Folder) -> None:
    async def ask(questions: Questions) -> None:
        await questions.ask("diff", dataset="green", month="2024-02")
        first = questions.process_id
        assert first
        os.kill(first, signal.SIGSTOP)
        asked = [
            asyncio.ensure_future(questions.ask(name, dataset="green", month="2024-02")) for name in ("diff", "month")
        ]
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        for result in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(result, PipelineError)
            assert str(result) == "the process that answers ended; try again"
        assert await questions.ask("diff", dataset="green", month="2024-02")
        assert questions.process_id not in (None, first)

    asking(filled, ask)


def test_a_slow_answer_blocks_neither_the_loop_nor_other_pages_and_is_made_once(filled: Folder) -> None:
    async def ask(questions: Questions) -> None:
        await questions.ask("diff", dataset="green", month="2024-02")
        process = questions.process_id
        assert process
        os.kill(process, signal.SIGSTOP)
        asked = [asyncio.ensure_future(questions.ask("status")) for _ in range(20)]
        for _ in range(20):  # The loop goes on.
            await asyncio.sleep(0.01)
        assert not any(each.done() for each in asked)
        assert asked[0].cancel()
        os.kill(process, signal.SIGCONT)
        first, *others = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert len({json.dumps(each) for each in others}) == 1

    asking(filled, ask)


def test_more_questions_than_are_allowed_at_once_wait_and_are_all_answered(filled: Folder) -> None:
    async def ask(questions: Questions) -> list[Any]:
        periods = (f"2024-01..{2024 + n // 12}-{n % 12 + 1:02}" for n in range(30))
        several = (questions.ask("deletions", datasets=["green"], period=each, step="load") for each in periods)
        return await asyncio.gather(*several)

    assert [each["rows"] for each in asking(filled, ask)] == [2000, *[4000] * 29]


def test_the_process_ends_when_nobody_asks_and_starts_when_somebody_does(filled: Folder) -> None:
    async def ask(questions: Questions) -> None:
        assert questions.process_id is None
        await questions.ask("diff", dataset="green", month="2024-02")
        first = questions.process_id
        assert first
        await until(lambda: is_gone(first))
        await questions.ask("diff", dataset="green", month="2024-02")
        assert questions.process_id != first

    asking(filled, ask, idle_s=0.2)


_BOARD = """
import asyncio, sys
from pipeline.board.questions import Questions
from pipeline.settings import resolve

async def main():
    questions = Questions(resolve())
    await questions.ask("status")
    print(questions.process_id, flush=True)
    await questions.ask("refresh", datasets=["all"], period="2024")
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_a_killed_board_leaves_no_process(filled: Folder) -> None:
    board = filled.start("python", "-c", _BOARD)
    try:
        assert board.stdout
        answering = int(board.stdout.readline())
        assert not is_gone(answering)
    finally:
        board.kill()
        board.communicate()
    asyncio.run(until(lambda: is_gone(answering)))


def test_secrets_are_neither_in_the_arguments_nor_in_the_environment_nor_in_an_answer(filled: Folder) -> None:
    secret = "s3cr3t"
    settings = resolve(source=f"http://user:{secret}@127.0.0.1:9/", notify_url=f"https://host/{secret}", retries="0")

    async def ask(questions: Questions) -> str:
        month = await questions.ask("month", dataset="green", month="2024-03")
        status = await questions.ask("status")
        plan = await questions.ask("plan", datasets=["green"], period="2024-03")
        process = psutil.Process(questions.process_id)
        assert secret not in " ".join(process.cmdline())
        assert secret not in " ".join(process.environ().values())
        return json.dumps([month, status, plan])

    assert secret not in asking(filled, ask, settings=settings)


def test_the_client_imports_nothing_heavy() -> None:
    heavy = ("pyarrow", "duckdb", "pandas", "numpy", "pipeline.places", "pipeline.lake", "click", "altair")
    code = f"import sys, pipeline.board.questions; print([m for m in {heavy} if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
    assert {"status", "month", "diff", "plan", "refresh", "deletions", "rows", "marts", "report"} == set(QUESTIONS)
