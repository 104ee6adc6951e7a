"""The process that answers the board's questions about lake and warehouse: `python -m pipeline.board.answers`.

The first line on standard input has the settings, each further one a question; each answer is a line on standard
output. Questions are answered in threads. The process ends when its standard input is closed, as when the board was
killed. Nothing secret is in its arguments or its environment.

    {"settings": {"lake": "data/lake", …}}
    {"id": 1, "question": "month", "dataset": "green", "month": "2024-01"}
    {"id": 1, "answer": {…}}  or  {"id": 1, "error": PipelineError.to_dict()}
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, is_dataclass
from datetime import date
from typing import Any, TextIO

from pipeline.board.month import month_document
from pipeline.datasets import DATASETS, dataset_named
from pipeline.errors import PipelineError, UsageError, as_pipeline_error
from pipeline.months import parse_month
from pipeline.runs.overview import MARKS, document, statuses_of
from pipeline.runs.selection import months_selected
from pipeline.settings import RunContext, adopt, adopt_context, resolve
from pipeline.state.steps import TABLE

_THREADS = 4


def status() -> dict[str, Any]:
    """The status of all months, and what its marks mean."""
    return {
        "document": document(*statuses_of(months_selected((), required=False))),
        "marks": {name: {"sign": mark.sign, "meaning": mark.meaning} for name, mark in MARKS.items()},
        "steps": [
            {"name": step.name, "stage": step.stage, "letter": step.letter, "leaves": step.leaves} for step in TABLE
        ],
        "next_scheduled": None,  # The user's cron is not known.
    }


def month(dataset: str, month: str | None) -> dict[str, Any]:
    """Everything about one month; the zones have none."""
    spec = dataset_named(dataset)
    if (spec.first_month is None) != (month is None):
        raise UsageError(f"{dataset} {month}: allowed are a month of {', '.join(DATASETS)}, and zones without one")
    return month_document(spec, parse_month(month) if month else None)


QUESTIONS: Mapping[str, Callable[..., Any]] = {each.__name__: each for each in (status, month)}


def answer(question: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The `answer` or the `error`; an exception that is no PipelineError has its traceback on standard error."""
    try:
        if question not in QUESTIONS:
            raise UsageError(f"no question is called {question!r}; there are {', '.join(QUESTIONS)}")
        return {"answer": QUESTIONS[question](**arguments)}
    except Exception as error:
        if not isinstance(error, PipelineError):
            traceback.print_exc()
        return {"error": as_pipeline_error(error).to_dict()}


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer until the end of the questions."""
    writing = threading.Lock()

    def reply(line: str) -> None:
        values = json.loads(line)
        number, name = values.pop("id"), values.pop("question")
        text = json.dumps({"id": number, **answer(name, values)}, default=_plain)
        with writing:
            answers.write(text + "\n")
            answers.flush()

    pool = ThreadPoolExecutor(_THREADS)
    for line in questions:
        pool.submit(reply, line)


def _plain(value: Any) -> Any:
    """Dates as ISO texts, dataclasses as objects, sets as lists."""
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return sorted(value)


def main() -> None:
    """Read the settings, then answer."""
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    adopt_context(RunContext())
    try:
        adopt(resolve(**json.loads(sys.stdin.readline())["settings"]))
    except PipelineError as error:  # Such as a folder that was deleted meanwhile; the next process tries again.
        first = json.loads(sys.stdin.readline() or "{}")
        answers.write(json.dumps({"id": first.get("id"), "error": error.to_dict()}) + "\n")
        answers.flush()
    else:
        serve(sys.stdin, answers)
    # Without waiting for the threads: nobody reads their answers.
    os._exit(0)


if __name__ == "__main__":
    main()
