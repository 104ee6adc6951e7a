"""What the pages of runs show, from the history and the events of a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import urlencode

from pipeline.board.grid import Answer, Translate, bytes_text, css_class, key_of
from pipeline.board.live import Followed, Live
from pipeline.errors import cut, visible
from pipeline.runs.event_files import StepState, failures
from pipeline.runs.history import Run, by_cause
from pipeline.source.retries import retry_message

_PAGE = 50
#: The class of a state of a step, where it has not the same name.
_CLASSES = {"waiting": "queued", "not run": "missing", "unknown": "missing"}
#: By event: its class and its name.
_EVENTS = {
    "run_started": ("queued", "planned"),
    "step_started": ("loaded", "begun"),
    "retry_scheduled": ("warning", "retry"),
    "step_finished": ("done", "done"),
    "step_failed": ("failed", "failed"),
    "log_lost": ("warning", "log lost"),
    "run_finished": ("queued", "ended"),
}
#: Texts that reach a page as values: states of steps, and names of events.
WORDS = ("waiting", "not run", "unknown", *(name for _css, name in _EVENTS.values()))
#: Options of a run that take a value, and the field of the form that has it.
_FIELDS = {"--from": "step", "--through": "through", "--workers": "workers"}


class Progress(NamedTuple):
    """How far a run is."""

    done: int
    months: int
    rows: int
    bytes: int
    #: By the steps' shares of time, from 0 to 1.
    fraction: float


def table(live: Live, before: str) -> dict[str, Any]:
    """The variables of `runs.html`: running runs first, then the newest; `before` is the run above this part."""
    running = {each.run.id for each in live.running}
    runs = sorted(live.runs, key=lambda run: run.id in running)[::-1]
    ids = [run.id for run in runs]
    start = ids.index(before) + 1 if before in ids else 0
    page = runs[start : start + _PAGE]
    return {
        "rows": [(run, progress(live.followed.get(run.id) or Followed(run, live.history), None)) for run in page],
        "older": page[-1].id if start + _PAGE < len(runs) else "",
        "is_first": not start,
        "path": live.history.path,
    }


def view(followed: Followed, answer: Answer | None, _: Translate) -> dict[str, Any]:
    """The variables of `run.html`."""
    return {
        "followed": followed,
        "run": followed.run,
        "facts": facts(followed, answer, _),
        "fraction": progress(followed, answer).fraction,
        "version": version(followed),
        "steps": list(dict.fromkeys(step for steps in followed.states.values() for step in steps)),
        "events": followed.events,
        "causes": by_cause(failures(followed.run, followed.failed)),
        "again": again(followed.run.asked),
    }


def news(followed: Followed, answer: Answer | None, _: Translate, months: Iterable[str]) -> dict[str, Any]:
    """What an open page of the run changes: class and text of each fact, and of each step of these months."""
    parts = {name: ("", text) for name, (_label, text) in facts(followed, answer, _).items()}
    for key in months:
        dataset, _space, month = key.partition(" ")
        for step, each in followed.states.get((dataset, month), {}).items():
            parts[f"{key} {step}"] = state_parts(each, _)
    return {"version": version(followed), "fraction": progress(followed, answer).fraction, "parts": parts}


def version(followed: Followed) -> str:
    """Differs when the page has to be fetched again."""
    return f"{followed.run.outcome}/{len(followed.failed)}/{len(followed.states)}"


def facts(followed: Followed, answer: Answer | None, _: Translate) -> dict[str, tuple[str, str]]:
    """By name: label and text of each number about a run."""
    now, seconds = progress(followed, answer), max(1.0, _seconds(followed.run))
    texts = {
        "months": (_("Months"), done_text(now, _)),
        "rows": (_("Rows"), f"{now.rows:,}"),
        "bytes": (_("Downloaded"), bytes_text(now.bytes, _)),
        "duration": (_("Duration"), run_time(followed.run, _)),
    }
    if now.rows:
        texts["speed"] = (_("Rows per second"), f"{now.rows / seconds:,.0f}")
    if now.done:
        texts["pace"] = (_("Months per second"), f"{now.done / seconds:.2g}")
    if not followed.is_over and 0 < now.fraction < 1:
        left = duration_text(seconds / now.fraction - seconds, _)
        texts["left"] = (_("Time left"), _("about %(time)s") % {"time": left})
    return texts


def progress(followed: Followed, answer: Answer | None) -> Progress:
    """How far the run is; of a run without events, what its record has."""
    run, shares = followed.run, {each["name"]: each.get("time_share", 1) for each in (answer or {}).get("steps", ())}
    total = done = 0.0
    rows = moved = months = 0
    for (_dataset, month), steps in followed.states.items():
        for name, each in steps.items():
            share = shares.get(name, 1)
            total += share
            done += share * (1 if each.state in ("done", "failed") else each.fraction or 0)
            rows += each.rows if name == "conform" else 0
            moved += each.bytes
        months += bool(month) and all(each.state == "done" for each in steps.values())
    if run.exit_code is not None:
        rows, moved, months = max(rows, run.rows), max(moved, run.bytes), len(run.months_done)
    planned = max(sum(bool(month) for _dataset, month in followed.states), months)
    return Progress(months, planned, rows, moved, done / total if total else float(run.exit_code == 0))


def done_text(now: Progress, _: Translate) -> str:
    """Such as 3 of 12."""
    return _("%(done)s of %(count)s") % {"done": f"{now.done:,}", "count": f"{now.months:,}"}


def again(asked: str) -> str:
    """The address of the form to run the command again; empty for another command."""
    try:
        _program, command, *words = shlex.split(asked)
    except ValueError:
        return ""
    if command not in ("backfill", "latest", "redo", "refresh"):
        return ""
    values, rest = [("action", command)], iter(words)
    for word in rest:
        if word in _FIELDS:
            values.append((_FIELDS[word], next(rest, "")))
        elif re.fullmatch(r"latest|\d{4}[\d.,-]*", word):
            values.append(("period", word))
        elif re.fullmatch(r"[a-z]+", word):
            values.append(("dataset", word))
        elif word not in ("--yes", "--apply"):
            break  # Settings, and what the form does not have.
    return f"/actions?{urlencode(values)}"


def duration_text(seconds: float, _: Translate) -> str:
    """Such as 2 min 05 s."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    if not minutes:
        return _("%(seconds)s s") % {"seconds": rest}
    if minutes < 60:
        return _("%(minutes)s min %(seconds)s s") % {"minutes": minutes, "seconds": f"{rest:02}"}
    return _("%(hours)s h %(minutes)s min") % {"hours": f"{minutes // 60:,}", "minutes": f"{minutes % 60:02}"}


def run_time(run: Run, _: Translate) -> str:
    """How long the run took, or has been running."""
    return duration_text(_seconds(run), _)


def _seconds(run: Run) -> float:
    try:
        ended = datetime.fromisoformat(run.ended) if run.ended else datetime.now(timezone.utc)
        return (ended - datetime.fromisoformat(run.began)).total_seconds()
    except TypeError:  # A time without a zone, in a record that something else wrote.
        return 0.0


def state_parts(step: StepState, _: Translate) -> tuple[str, str]:
    """Class and text of a step."""
    text = _(step.state)
    if step.state == "running":
        text = f"{text} {step.note}"
    elif step.began and step.state in ("done", "failed"):
        text = f"{text} {_('%(seconds)s s') % {'seconds': f'{step.seconds:,.1f}'}}"
    return f"badge {_CLASSES.get(step.state, step.state)}", visible(cut(text.rstrip(), 80))


def event_parts(event: Mapping[str, Any], _: Translate) -> tuple[str, str, str]:
    """Class, name and text of an event."""
    css, name = _EVENTS.get(event["event"], ("queued", event["event"].replace("_", " ")))
    text = event.get("message", "")
    if event["event"] == "run_started":
        count = len(event.get("months", ()))
        text = _("%(count)s month", "%(count)s months", count) % {"count": f"{count:,}"}
    elif event["event"] == "retry_scheduled":
        attempt, attempts, wait_s = (event.get(each) or 0 for each in ("attempt", "attempts", "wait_s"))
        text = retry_message(attempt, attempts, wait_s, event.get("reason", ""))
    elif event["event"] == "step_failed":
        text = f"{event['error']['kind']}: {event['error']['message']}"
    elif event["event"] == "run_finished":
        outcome = str(event.get("outcome", ""))
        css, text = css_class(outcome), _(outcome)
    subject = " ".join(event.get(each, "") for each in ("step", "dataset", "month")).strip()
    return css, visible(_(name)), visible(cut(f"{subject}: {text}" if subject else text, 600))


def link(dataset: str, month: str) -> tuple[str, str]:
    """The address of a month (empty if they cannot be one), and its text."""
    address = f"/months/{dataset}/{month}".rstrip("/")
    is_one = re.fullmatch(r"/months/[a-z]{1,20}(/\d{4}-\d\d)?", address)
    return address if is_one else "", visible(key_of(dataset, month))
