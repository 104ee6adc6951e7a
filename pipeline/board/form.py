"""The form of an action: its values, all that is invalid about them, and the command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tornado.web import RequestHandler

from pipeline.board.grid import Answer
from pipeline.errors import UsageError, cut
from pipeline.months import parse_period
from pipeline.tasks.workers import default_workers

ACTIONS = ("backfill", "redo", "refresh", "latest")
MOST_WORKERS = 16
#: What a refresh finds about a month.
FINDINGS = ("new", "republished", "gone", "stale", "rows", "unknown", "unanswered")
_ZONES = "zones"


class Form:
    """What the form asks for; every value as it was typed."""

    def __init__(self, handler: RequestHandler, action: str, status: Answer) -> None:
        self._translate = handler.locale.translate
        #: What can be chosen.
        self.all_datasets = [*(each["dataset"] for each in status["document"]["datasets"]), _ZONES]
        self.all_steps = [each["name"] for each in status["steps"]]
        chosen = handler.get_arguments("dataset")
        self.action = action
        self.datasets = list(dict.fromkeys(self.all_datasets[:-1] if "all" in chosen else chosen))
        self.period, self.step = handler.get_argument("period", ""), handler.get_argument("step", "")
        self.through = handler.get_argument("through", self.all_steps[-1])
        self.workers = handler.get_argument("workers", str(default_workers()))

    def problems(self) -> list[str]:
        """All that is invalid, for its user."""
        _, has_zones, is_redo = self._translate, _ZONES in self.datasets, self.action == "redo"
        allowed = self.all_datasets if is_redo else self.all_datasets[:-1]
        unknown = [name for name in self.datasets if name not in allowed]
        is_through = self.action != "backfill" or self.through in self.all_steps
        is_count = re.fullmatch(r"[1-9][0-9]?", self.workers) and int(self.workers) <= MOST_WORKERS
        values: Sequence[tuple[object, str, str, Sequence[str]]] = (
            (self.action in ACTIONS, _("Action"), self.action, ACTIONS),
            (not unknown, _("Datasets"), ", ".join(unknown), allowed),
            (not is_redo or self.step in self.all_steps, _("From"), self.step, self.all_steps),
            (is_through, _("Through"), self.through, self.all_steps),
            (is_count, _("Workers"), self.workers, [f"1-{MOST_WORKERS}"]),
        )
        text = _("%(name)s: %(value)s is invalid; allowed are %(allowed)s")
        problems = [
            text % {"name": name, "value": cut(value, 60) or _("nothing"), "allowed": ", ".join(allowed)}
            for is_valid, name, value, allowed in values
            if not is_valid
        ]
        needs_period = not has_zones and self.action not in ("refresh", "latest")
        if not self.datasets and self.action in ("backfill", "redo"):
            problems.append(_("Choose a dataset."))
        if has_zones and (len(self.datasets) > 1 or self.period):
            problems.append(_("The zones are done alone, and have no period."))
        elif (needs_period or (self.period and self.action != "latest")) and (why := _why_no_period(self.period)):
            problems.append(_("Period: %(why)s") % {"why": why})
        return problems

    def words(self) -> list[str]:
        """The command of valid values."""
        options = {
            "backfill": ["--through", self.through] if self.through != self.all_steps[-1] else [],
            "redo": ["--from", self.step, "--yes"],
            "refresh": ["--apply"],
            "latest": [],
        }[self.action]
        period = [self.period] if self.period and self.action != "latest" else []
        workers = ["--workers", self.workers] if self.workers != str(default_workers()) else []
        return [self.action, *self.datasets, *period, *options, *workers]

    def question(self) -> tuple[str, dict[str, Any]] | None:
        """The question whose answer is the preview, and its values; None for an action that has none."""
        names: dict[str, Any] = {"datasets": self.datasets, "period": self.period or None}
        questions = {
            "backfill": ("plan", {**names, "through": self.through}),
            "redo": ("deletions", {**names, "step": self.step}),
            "refresh": ("refresh", names),
        }
        return questions.get(self.action)


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
