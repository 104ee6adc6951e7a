"""The form of an action: its values, all that is invalid about them, the command, and what it would do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tornado.web import RequestHandler

from pipeline.board.grid import Translate, bytes_text
from pipeline.errors import UsageError, cut
from pipeline.months import parse_month, parse_period, spans

ACTIONS = ("backfill", "redo", "refresh", "latest")
ZONES = "zones"
MOST_WORKERS = 16
#: What a refresh finds about a month.
FINDINGS = ("new", "republished", "gone", "stale", "rows", "unknown", "unanswered")


class Form(NamedTuple):
    """What the form asks for; every value as it was typed."""

    action: str
    datasets: tuple[str, ...]
    period: str
    step: str
    through: str
    workers: str

    @classmethod
    def of(cls, handler: RequestHandler, action: str, datasets: Sequence[str], last_step: str) -> Form:
        """The values of a request; `datasets` are all that there are."""
        chosen = handler.get_arguments("dataset")
        texts = [
            handler.get_argument(name, default)
            for name, default in (("period", ""), ("step", ""), ("through", last_step), ("workers", "2"))
        ]
        return cls(action, tuple(dict.fromkeys(datasets if "all" in chosen else chosen)), *texts)

    def problems(self, datasets: Sequence[str], steps: Sequence[str], _: Translate) -> list[str]:
        """All that is invalid, for its user."""
        problems = []
        allowed = [*datasets, ZONES] if self.action == "redo" else datasets
        if self.action not in ACTIONS:
            problems.append(_invalid(_("Action"), self.action, ", ".join(ACTIONS), _))
        if unknown := [name for name in self.datasets if name not in allowed]:
            problems.append(_invalid(_("Datasets"), ", ".join(unknown), ", ".join(allowed), _))
        elif not self.datasets and self.action in ("backfill", "redo"):
            problems.append(_("Choose a dataset."))
        if ZONES in self.datasets and (len(self.datasets) > 1 or self.period):
            problems.append(_("The zones are done alone, and have no period."))
        elif self.action != "latest" and not (not self.period and (self.action == "refresh" or ZONES in self.datasets)):
            problems += [_("Period: %(why)s") % {"why": why} for why in [_why_no_period(self.period)] if why]
        if self.action == "redo" and self.step not in steps:
            problems.append(_invalid(_("From"), self.step, ", ".join(steps), _))
        if self.action == "backfill" and self.through not in steps:
            problems.append(_invalid(_("Through"), self.through, ", ".join(steps), _))
        if not re.fullmatch(r"[1-9][0-9]?", self.workers) or int(self.workers) > MOST_WORKERS:
            problems.append(_invalid(_("Workers"), self.workers, f"1-{MOST_WORKERS}", _))
        return problems

    def words(self, last_step: str) -> list[str]:
        """The command of valid values."""
        period = [self.period] if self.period and self.action != "latest" else []
        words = [self.action, *self.datasets, *period]
        if self.action == "redo":
            words += ["--from", self.step, "--yes"]
        elif self.action == "refresh":
            words += ["--apply"]
        elif self.action == "backfill" and self.through != last_step:
            words += ["--through", self.through]
        return words + (["--workers", self.workers] if self.workers != "2" else [])

    @property
    def question(self) -> tuple[str, dict[str, Any]] | None:
        """The question whose answer is the preview; None for an action that has none."""
        names: dict[str, Any] = {"datasets": list(self.datasets), "period": self.period or None}
        if self.action == "redo":
            return "deletions", {**names, "step": self.step}
        if self.action == "backfill":
            return "plan", {**names, "through": self.through}
        return ("refresh", names) if self.action == "refresh" else None


class Preview(NamedTuple):
    """What an action would do."""

    head: Sequence[str]
    #: Of numbers, or of texts.
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    #: Whether there is nothing to do.
    is_empty: bool


def _invalid(name: str, value: str, allowed: str, _: Translate) -> str:
    texts = {"name": name, "value": cut(value, 60) or _("nothing"), "allowed": allowed}
    return _("%(name)s: %(value)s is invalid; allowed are %(allowed)s") % texts


def _why_no_period(text: str) -> str:
    """Why the text is no period; empty if it is one."""
    if text in ("latest", "all"):
        return ""
    if len(text) > 500 or text.startswith("-"):
        return f"{cut(text)!r} is not a period"
    try:
        for part in text.split(","):
            parse_period(part)
    except UsageError as error:
        return str(error)
    return ""


def _plan_preview(answer: Mapping[str, Any], _: Translate) -> Preview:
    rows, notes = [], [*answer["problems"]]
    count = moved = 0
    for plan in answer["datasets"]:
        name, marks = plan["dataset"], answer["marks"][plan["dataset"]]
        parts = [(_("from %(step)s on") % {"step": _(step)}, months) for step, months in plan["begins"].items()]
        count += sum(len(months) for _text, months in parts)
        moved += plan["bytes_to_download"]
        parts += [
            (_("failed before"), [*marks.get("failed", ()), *marks.get("refused", ())]),
            (_("out of date, and left so: refresh brings them up to date"), answer["left"][name]),
            (_("not published yet"), plan["not_published"]),
            (_("the source did not answer"), plan["unanswered"]),
            (_("up to date"), plan["there"]),
        ]
        rows += [(name, text, f"{len(months):,}", _periods(months)) for text, months in parts if months]
    texts = {"count": f"{count:,}", "bytes": bytes_text(moved, _)}
    notes.append(_("%(count)s month to do", "%(count)s months to do", count) % texts)
    notes.append(_("About %(bytes)s are downloaded.") % texts)
    if space := answer["space"]:
        sizes = {"needed": bytes_text(space["needed"], _), "free": bytes_text(space["free"], _)}
        notes.append(_("They take about %(needed)s in the end; %(free)s are free on the disk.") % sizes)
        if not space["is_enough"]:
            notes.append(_("The disk is too small for them."))
    is_empty = not count and not answer["zones"]
    return Preview((_("Dataset"), _("What"), _("Months"), _("Period")), rows, notes, is_empty)


def _deletions_preview(answer: Mapping[str, Any], _: Translate) -> Preview:
    head = (_("Month"), _("Files to delete"), _("Size"), _("Rows to delete"), _("Marts"))
    rows = [
        (
            f"{each['dataset']} {each['month'] or ''}".rstrip(),
            ", ".join(file["type"] for file in each["files"]),
            bytes_text(each["bytes"], _) if each["bytes"] else "",
            f"{each['rows']:,}" if each["rows"] else "",
            f"{len(each['marts']) or ''}",
        )
        for each in answer["months"]
    ]
    texts = {"bytes": bytes_text(answer["bytes"], _), "rows": f"{answer['rows']:,}"}
    notes = [_("In all, %(bytes)s and %(rows)s rows are deleted, each month once its input was verified.") % texts]
    return Preview(head, rows, notes if rows else [_("Nothing is deleted: none of this exists.")], False)


def _refresh_preview(answer: Mapping[str, Any], _: Translate) -> Preview:
    rows = []
    for each in answer["findings"]:
        todo = _("from %(step)s on") % {"step": _(each["redo_from"])} if each["redo_from"] else ""
        subject = f"{each['dataset']} {each['month'] or ''}".rstrip()
        rows.append((subject, f"{_(each['finding'])}: {each['why']}", (each["dated"] or "")[:10], todo))
    texts = {"same": f"{answer['as_at_source']:,}", "count": f"{answer['compared']:,}"}
    notes = [_("%(same)s of %(count)s months match the source.") % texts]
    notes += [answer["not_counted"]] if answer["not_counted"] else []
    return Preview((_("Month"), _("Finding"), _("Date"), _("To do")), rows, notes, not any(row[3] for row in rows))


#: By question: makes the preview of its answer.
PREVIEWS: Mapping[str, Callable[[Mapping[str, Any], Translate], Preview]] = {
    "plan": _plan_preview,
    "deletions": _deletions_preview,
    "refresh": _refresh_preview,
}


def _periods(months: Sequence[str]) -> str:
    return ", ".join(spans(map(parse_month, months)))
