"""The pages of the board."""

from __future__ import annotations

import asyncio
from typing import Any

from tornado.web import HTTPError

from pipeline.board import month_page
from pipeline.board.grid import daily_job, view
from pipeline.board.handler import Page
from pipeline.board.live import Live
from pipeline.errors import PipelineError
from pipeline.settings import suggested_command


class _Page(Page):
    @property
    def live(self) -> Live:
        live: Live = self.settings["live"]
        return live

    async def ask(self, question: str, **values: Any) -> Any:
        """The answer of the answering process."""
        return await self.settings["questions"].ask(question, **values)


class Grid(_Page):
    """All months."""

    async def get(self) -> None:
        """Show it."""
        answer, runs = await self.live.status(), self.live.history.runs()
        commands = {
            "first": suggested_command("backfill", "green", "latest"),
            "refresh": suggested_command("refresh", "--apply"),
        }
        self.render(
            "grid.html",
            **view(answer, self.locale.translate, self.live.overlay()),
            commands=commands,
            last_run=runs[-1] if runs else None,
            daily=daily_job(runs),
        )


class Month(_Page):
    """Everything about one month, or about the zones."""

    async def get(self, dataset: str, month: str | None) -> None:
        """Show it, with the difference from the month before or from that of `?against=2024-02`."""
        against = self.get_query_argument("against", "")
        try:
            status = await self.live.status()
            month_page.neighbours(status["document"], dataset, month)
            answer = await self.ask("month", dataset=dataset, month=month)
        except PipelineError as error:
            self.fail(error)
            return
        difference, problem = answer["diff"], ""
        if month and against:
            try:
                other = month_page.month_named(against, month)
                difference = await self.ask("diff", dataset=dataset, month=month, against=other)
            except PipelineError as error:
                problem = str(error)
        now = self.live.overlay().get(f"{dataset} {month or ''}".rstrip(), {})
        values = month_page.values(status, answer, self.live.history, now, self.locale.translate)
        self.render("month.html", **values, difference=difference, against=against, problem=problem)


class MonthData(_Page):
    """First rows and pictures of a month; the page of the month fetches them from here when they are opened."""

    async def get(self, dataset: str, month: str | None) -> None:
        """Show them."""
        questions = ("rows", "marts") if month else ("rows",)
        asked = (self.ask(question, dataset=dataset, month=month) for question in questions)
        answers, problems = dict[str, Any](), []
        for question, answer in zip(questions, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(answer, PipelineError):
                problems.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answers[question] = answer
        values = month_page.data_values(answers.get("rows"), answers.get("marts", {}))
        self.render(
            "month_data.html", **month_page.names_of(dataset, month, self.locale.translate), **values, problems=problems
        )


class Runs(_Page):
    """The history of runs."""

    def get(self) -> None:
        """Show it."""
        self.render("runs.html", runs=self.live.history.runs()[::-1])


class Run(_Page):
    """One run."""

    def get(self, run_id: str) -> None:
        """Show it."""
        try:
            run = self.live.history.run(run_id)
        except PipelineError as error:
            self.fail(error)
        else:
            self.render("run.html", run=run)


class Events(_Page):
    """Server-sent events of what changes."""

    async def get(self) -> None:
        """Show it."""
        raise HTTPError(404)


class NotFound(Page):
    """Every other address."""

    def prepare(self) -> None:
        """Show it."""
        super().prepare()
        raise HTTPError(404)
