"""What the pages of runs show, from the history and the events of a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import urlencode

from pipeline.board.grid import Answer, Translate, bytes_text, css_class
from pipeline.board.live import Followed, Live
from pipeline.errors import cut, visible
from pipeline.runs.event_files import StepState, failures
from pipeline.runs.history import Run, by_cause
from pipeline.source.retries import retry_message

_PAGE = 50
_MOST_LINKS, _MOST_CHARACTERS = 40, 600
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
_MONTH = re.compile(r"[a-z]{1,20}( \d{4}-\d\d)?")
#: Options of a run that take a value, and the field of the form that has it.
_FIELDS = {"--from": "step", "--through": "through", "--workers": "workers"}


class Row(NamedTuple):
    """A run in the history."""

    run: Run
    outcome: str
    #: Such as `3 of 12` for one that runs.
    months: str
    rows: str
    bytes: str
    duration: str


class Progress(NamedTuple):
    """How far a run is."""

    done: int
    months: int
    rows: int
    bytes: int
    #: By the steps' shares of time, from 0 to 1.
    fraction: float


def table(live: Live, before: str, _: Translate) -> dict[str, Any]:
    """The variables of `runs.html`: running runs first, then the newest; `before` is the run above this part."""
    running = [each.run.id for each in live.running]
    past = [run for run in reversed(live.runs) if run.id not in running]
    ids = [run.id for run in past]
    start = ids.index(before) + 1 if before in ids else 0
    rows = [_row(run, _) for run in past[start : start + _PAGE]]
    if not start:
        rows = [_running_row(each, _) for each in reversed(live.running)] + rows
    older = past[start + _PAGE - 1].id if len(past) > start + _PAGE else ""
    return {"rows": rows, "older": older, "is_first": not start, "path": live.history.path, "css_class": css_class}


def view(followed: Followed, answer: Answer | None, _: Translate) -> dict[str, Any]:
    """The variables of `run.html`."""
    run = followed.run
    causes = [
        (visible(cut(group[0].error, 2_000)), group[0], [_link(f"{each.dataset} {each.month}") for each in group])
        for group in by_cause(failures(run, followed.failed))
    ]
    states = {
        " ".join(month).rstrip(): {step: _state(followed, month, step, each, _) for step, each in steps.items()}
        for month, steps in followed.states.items()
    }
    return {
        "run": run,
        "is_running": not followed.is_over and run.outcome == "running",
        "facts": facts(followed, answer, _),
        "progress": progress(followed, answer),
        "version": _version(followed),
        "states": states,
        "steps": list(dict.fromkeys(step for steps in followed.states.values() for step in steps)),
        "log": lines(followed.events, _)[::-1],
        "causes": causes,
        "most_links": _MOST_LINKS,
        "again": again(run.asked),
        "link": _link,
        "css_class": css_class,
    }


def news(followed: Followed, answer: Answer | None, _: Translate, months: Iterable[str], count: int) -> dict[str, Any]:
    """What an open page of the run changes: facts, steps of these months, and the events after the first `count`."""
    states = {}
    for key in months:
        dataset, _space, month = key.partition(" ")
        for step, each in followed.states.get((dataset, month), {}).items():
            states[f"{key} {step}"] = _state(followed, (dataset, month), step, each, _)
    return {
        "version": _version(followed),
        "facts": {name: text for name, _label, text in facts(followed, answer, _)},
        "fraction": progress(followed, answer).fraction,
        "steps": states,
        "log": lines((each for each in followed.events if each[0] > count), _),
    }


def facts(followed: Followed, answer: Answer | None, _: Translate) -> list[tuple[str, str, str]]:
    """Name, label and text of each number about a run."""
    run, now = followed.run, progress(followed, answer)
    seconds = max(1.0, _seconds(run))
    texts = [
        ("months", _("Months"), _of(now.done, now.months, _)),
        ("rows", _("Rows"), f"{now.rows:,}"),
        ("bytes", _("Downloaded"), bytes_text(now.bytes, _)),
        ("duration", _("Duration"), duration_text(_seconds(run), _)),
    ]
    if now.rows:
        texts.append(("speed", _("Rows per second"), f"{now.rows / seconds:,.0f}"))
    if now.done:
        texts.append(("pace", _("Months per second"), f"{now.done / seconds:.2g}"))
    if not followed.is_over and 0 < now.fraction < 1:
        left = seconds / now.fraction - seconds
        texts.append(("left", _("Time left"), _("about %(time)s") % {"time": duration_text(left, _)}))
    return texts


def progress(followed: Followed, answer: Answer | None) -> Progress:
    """How far the run is; of a run without events, what its record has."""
    run, shares = followed.run, {each["name"]: each.get("time_share", 1) for each in (answer or {}).get("steps", ())}
    total = done = 0.0
    rows = moved = months = 0
    for (dataset, month), steps in followed.states.items():
        for name, each in steps.items():
            share = shares.get(name, 1)
            total += share
            ended = each.state in ("done", "failed")
            done += share if ended else share * followed.fractions.get((dataset, month, name), 0)
            rows += each.rows if name == "conform" else 0
            moved += each.bytes
        months += bool(month) and all(each.state == "done" for each in steps.values())
    if run.exit_code is not None:
        rows, moved, months = max(rows, run.rows), max(moved, run.bytes), len(run.months_done)
    planned = max(sum(bool(month) for _dataset, month in followed.states), months)
    return Progress(months, planned, rows, moved, done / total if total else float(run.exit_code == 0))


def lines(events: Iterable[tuple[int, Mapping[str, Any]]], _: Translate) -> list[tuple[int, str, str, str, str]]:
    """Number, time, class, name and text of each event."""
    return [(number, event["at"][11:19], *_event(event, _)) for number, event in events]


def again(asked: str) -> str:
    """The address of the form to run the command again; empty for another command."""
    try:
        _program, command, *words = shlex.split(asked)
    except ValueError:
        return ""
    if command not in ("backfill", "latest", "redo", "refresh"):
        return ""
    values = [("action", command)]
    names = iter(words)
    for word in names:
        if word in _FIELDS:
            values.append((_FIELDS[word], next(names, "")))
        elif re.fullmatch(r"(latest|\d{4}[\d.,-]*)", word):
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


def _row(run: Run, _: Translate) -> Row:
    rows, size = (f"{run.rows:,}" if run.rows else ""), (bytes_text(run.bytes, _) if run.bytes else "")
    duration = duration_text(_seconds(run), _) if run.ended else ""
    return Row(run, run.outcome, f"{len(run.months_done) or ''}", rows, size, duration)


def _running_row(followed: Followed, _: Translate) -> Row:
    now, run = progress(followed, None), followed.run
    duration = duration_text(_seconds(run), _)
    return Row(run, run.outcome, _of(now.done, now.months, _), f"{now.rows:,}", bytes_text(now.bytes, _), duration)


def _of(done: int, count: int, _: Translate) -> str:
    return _("%(done)s of %(count)s") % {"done": f"{done:,}", "count": f"{count:,}"}


def _seconds(run: Run) -> float:
    """How long the run took, or has been running."""
    try:
        ended = datetime.fromisoformat(run.ended) if run.ended else datetime.now(timezone.utc)
        return (ended - datetime.fromisoformat(run.began)).total_seconds()
    except (ValueError, TypeError):
        return 0.0


def _version(followed: Followed) -> str:
    """Differs when the page has to be fetched again."""
    return f"{followed.run.outcome}/{len(followed.failed)}/{len(followed.states)}"


def _state(followed: Followed, month: tuple[str, str], step: str, each: StepState, _: Translate) -> tuple[str, str]:
    """Class and text of a step."""
    text = _(each.state)
    if each.state == "running":
        text = f"{text} {followed.note(*month, step)}"
    elif each.began and each.state in ("done", "failed"):
        text = f"{text} {_('%(seconds)s s') % {'seconds': f'{each.seconds:,.1f}'}}"
    return _CLASSES.get(each.state, each.state), visible(cut(text.rstrip(), 80))


def _event(event: Mapping[str, Any], _: Translate) -> tuple[str, str, str]:
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
        css, text = css_class(str(event.get("outcome", ""))), _(str(event.get("outcome", "")))
    subject = " ".join(event.get(each, "") for each in ("step", "dataset", "month")).strip()
    return css, visible(_(name)), visible(cut(f"{subject}: {text}" if subject else text, _MOST_CHARACTERS))


def _link(key: str) -> tuple[str, str]:
    """The address of a month such as `green 2024-01` (empty if there is none), and its text."""
    key = key.rstrip()
    return (f"/months/{key.replace(' ', '/')}" if _MONTH.fullmatch(key) else ""), visible(key)
