"""The process that answers the board's questions about lake and warehouse: `python -m pipeline.board.answers`.

The first line on standard input has the settings, each further one a question; each answer is a line on standard
output. Questions are answered in threads. The process ends when its standard input is closed, as when the board was
killed. Nothing secret is in its arguments or its environment.

    {"settings": {"lake": "data/lake", …}}
    {"id": 1, "question": "month", "dataset": "green", "month": "2024-01"}
    {"id": 1, "answer": {…}}  or  {"id": 1, "error": PipelineError.to_dict()}
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, is_dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import tornado.locale

from pipeline.board.month import month_document
from pipeline.datasets import DATASETS, ZONES, dataset_named
from pipeline.errors import PipelineError, UsageError, WarehouseError, as_pipeline_error
from pipeline.marts import marts_of
from pipeline.months import parse_month
from pipeline.places import inventory_of, store_of, warehouse_of
from pipeline.report import pictures
from pipeline.runs.overview import document, statuses_of, with_marks
from pipeline.runs.preview import backfill_preview, compare_with_source, comparison_data, deletions_preview, space_for
from pipeline.runs.selection import months_of, months_selected, months_to_compare, parse_selection
from pipeline.settings import (
    RunContext,
    Settings,
    adopt,
    adopt_context,
    current_settings,
    resolve,
    suggested_command,
)
from pipeline.state.checks import diff_months
from pipeline.state.invalidation import deletion_plans
from pipeline.state.steps import STEPS, steps_of
from pipeline.state.trips import first_rows, hours_of_week, trips_entry

_THREADS, _ROWS, _LOCK_S = 8, 10, 10.0


def status() -> dict[str, Any]:
    """The status of all months, and what its marks mean."""
    answer = with_marks(document(*statuses_of(months_selected((), required=False))))
    return {**answer, "last_steps": {name: steps_of(name)[-1] for name in (*DATASETS, ZONES.name)}}


def month(dataset: str, month: str | None) -> dict[str, Any]:
    """Everything about one month; the zones have none."""
    spec = dataset_named(dataset)
    if (spec.first_month is None) != (month is None):
        raise UsageError(f"{dataset} {month}: allowed are a month of {', '.join(DATASETS)}, and zones without one")
    return month_document(spec, parse_month(month) if month else None)


def diff(dataset: str, month: str, against: str | None = None) -> dict[str, Any]:
    """What differs between two months, as `pipeline diff --json` has it; `against` is the one before by default."""
    if month == against:
        raise UsageError(f"{dataset} {month}: allowed is another month to compare it with")
    months = (parse_month(month), parse_month(against) if against else None)
    return diff_months(store_of(current_settings()), dataset_named(dataset), *months, command=suggested_command)


def plan(datasets: Sequence[str], period: str, through: str = STEPS[-1]) -> dict[str, Any]:
    """What a backfill would do, as `pipeline plan --json` has it, and whether it fits on the disk.

    A backfill leaves what is out of date; which months were republished only a refresh finds out.
    """
    _validate_step(through)
    months = months_selected([*datasets, period], ask=True)
    preview, problems = backfill_preview(months, through)
    space = space_for(months, through)
    room = {**asdict(space), "is_enough": space.is_enough} if space else None
    return {**preview, "space": room, "problems": [str(problem) for problem in problems[:1]]}


def refresh(datasets: Sequence[str], period: str | None = None) -> dict[str, Any]:
    """What a refresh finds, as `pipeline refresh --json` has it; one request for each month."""
    months = months_to_compare(_selection(datasets, period))
    compared = compare_with_source(months)
    return {**comparison_data(months, compared), "not_counted": compared.not_counted}


def deletions(datasets: Sequence[str], period: str | None, step: str) -> dict[str, Any]:
    """What a redo from this step deletes; the zones have no period."""
    _validate_step(step)
    months = months_selected(_selection(datasets, period), zones=True)
    return deletions_preview(deletion_plans(inventory_of(current_settings()), months, step))


def rows(dataset: str, month: str | None) -> dict[str, Any]:
    """The first rows of the trips file as texts; a null is null."""
    spec, day = dataset_named(dataset), parse_month(month) if month else None
    entry = trips_entry(store_of(current_settings()), spec, day, command=suggested_command)
    table, total = first_rows(entry, spec, day, None, _ROWS, command=suggested_command)
    columns = []
    for field in table.schema:
        declared = spec.by_name.get(field.name)
        unit, meaning = (declared.unit, declared.doc) if declared else ("", "")
        columns.append({"name": field.name, "type": str(field.type), "unit": unit, "meaning": meaning})
    texts = [[None if value is None else str(value) for value in row.values()] for row in table.to_pylist()]
    return {"columns": columns, "rows": texts, "total": total}


def marts(dataset: str, month: str) -> dict[str, Any]:
    """Series for the pictures of a month; each has `data`, or a `reason` why it is null."""
    spec, day = dataset_named(dataset), parse_month(month)
    # A load may have DuckDB's file for minutes; who looks at a page does not wait for it.
    settings = replace(current_settings(), lock_timeout_s=1)
    where = f"WHERE dataset = '{spec.name}' AND month = DATE '{day}'"
    series = {
        "daily_trips": f"SELECT day, trips FROM daily_trips {where} ORDER BY day",
        "monthly_zone_revenue": "SELECT pickup_location_id, pickup_zone, pickup_borough, trips, total_amount "
        f"FROM monthly_zone_revenue {where} ORDER BY COALESCE(total_amount, 0) DESC LIMIT 10",
    }

    def read(name: str) -> Any:
        if name == "hours_of_week":
            entry = trips_entry(store_of(settings), spec, day, command=suggested_command)
            return hours_of_week(entry, spec, day, command=suggested_command)
        if name not in {mart.name for mart in marts_of(spec.name)}:
            raise WarehouseError(f"{spec.name} does not have the mart {name}")
        if name not in inventory_of(settings).marts(spec).get(day, {}):
            remedy = suggested_command("backfill", spec.name, month)
            raise WarehouseError(f"{spec.name} {month}: the mart {name} is not built; run: {remedy}")
        return warehouse_of(settings).query(series[name]).to_pylist()

    pictures = {}
    for name in (*series, "hours_of_week"):
        try:
            pictures[name] = {"data": read(name), "reason": ""}
        except PipelineError as error:
            pictures[name] = {"data": None, "reason": str(error)}
    return pictures


def report(datasets: Sequence[str], period: str, language: str) -> dict[str, Any]:
    """The pictures of these months in this language, by default of all."""
    months = months_of(parse_selection(datasets)[0], period or "all")
    settings = replace(current_settings(), lock_timeout_s=1)
    return pictures.report(inventory_of(settings), months, tornado.locale.get(language).translate)


def _selection(datasets: Sequence[str], period: str | None) -> list[str]:
    return [*datasets, *([period] if period else [])]


def _impatient(settings: Settings) -> Settings:
    """Who looks at a page does not wait for a lock as long as a run does."""
    return replace(settings, lock_timeout_s=min(settings.lock_timeout_s, _LOCK_S))


def _validate_step(step: str) -> None:
    if step not in STEPS:
        raise UsageError(f"{step!r} is not a step; allowed are {', '.join(STEPS)}")


QUESTIONS: Mapping[str, Callable[..., Any]] = {
    each.__name__: each for each in (status, month, diff, plan, refresh, deletions, rows, marts, report)
}


def answer(line: str) -> str:
    """The line that answers a question; the traceback of an exception that is no PipelineError is on standard error."""
    values = json.loads(line)
    number, question = values.pop("id"), values.pop("question")
    try:
        if question not in QUESTIONS:
            raise UsageError(f"no question is called {question!r}; there are {', '.join(QUESTIONS)}")
        return json.dumps({"id": number, "answer": QUESTIONS[question](**values)}, default=_plain)
    except Exception as error:
        if not isinstance(error, PipelineError):
            traceback.print_exc()
        return json.dumps({"id": number, "error": as_pipeline_error(error).to_dict()})


def _plain(value: Any) -> Any:
    """Dates as ISO texts, decimals as numbers, dataclasses as objects, sets as lists."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return sorted(value)


def main() -> None:
    """Read the settings, then answer."""
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    writing, pool = threading.Lock(), ThreadPoolExecutor(_THREADS)

    def reply(line: str) -> None:
        text = answer(line)
        with writing:
            print(text, file=answers, flush=True)

    tornado.locale.load_translations(str(Path(__file__).parent / "locale"))
    adopt_context(RunContext())
    lines = iter(sys.stdin)  # Ends at once if the board was killed meanwhile.
    try:
        for line in itertools.islice(lines, 1):
            adopt(_impatient(resolve(**json.loads(line)["settings"])))
    except PipelineError as error:  # Such as a folder that was deleted meanwhile; the next process tries again.
        for line in itertools.islice(lines, 1):
            print(json.dumps({"id": json.loads(line)["id"], "error": error.to_dict()}), file=answers, flush=True)
    else:
        for line in lines:
            pool.submit(reply, line)
    # Without waiting for the threads, whose answers have no reader any more.
    os._exit(0)


if __name__ == "__main__":
    main()
