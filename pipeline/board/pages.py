"""The pages of the board."""

from __future__ import annotations

from typing import Any

from tornado.web import HTTPError

from pipeline.board.handler import Page
from pipeline.board.live import Live
from pipeline.errors import PipelineError


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
        self.render("grid.html", **await self.live.status())


class Month(_Page):
    """Everything about one month, or about the zones."""

    async def get(self, dataset: str, month: str | None) -> None:
        """Show it."""
        try:
            answer = await self.ask("month", dataset=dataset, month=month)
        except PipelineError as error:
            self.fail(error)
        else:
            self.render("month.html", dataset=dataset, month=month, answer=answer)


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
