"""The pages of the board."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from pipeline.board import month_page, runs
from pipeline.board.grid import changes, daily_job, view
from pipeline.board.handler import Page
from pipeline.board.live import POLL_S, Live, Overlay, Stream
from pipeline.errors import PipelineError
from pipeline.settings import suggested_command

#: A comment so often shows both sides that the other one still exists; a page that reads nothing for long is left.
_HEARTBEAT_S, _SLOW_S = 15, 30


class BoardPage(Page):
    """A page that shows what the board knows."""

    @property
    def live(self) -> Live:
        """What the board knows."""
        live: Live = self.settings["live"]
        return live

    async def ask(self, question: str, **values: Any) -> Any:
        """The answer of the answering process."""
        return await self.settings["questions"].ask(question, **values)


class Grid(BoardPage):
    """All months."""

    async def get(self) -> None:
        """Show it."""
        try:
            answer, past = await self.live.status(), self.live.runs
        except PipelineError as error:
            self.fail(error)
            return
        commands = {
            "first": suggested_command("backfill", "green", "latest"),
            "refresh": suggested_command("refresh", "--apply"),
        }
        self.render(
            "grid.html",
            **view(answer, self.locale.translate, self.live.overlay()),
            commands=commands,
            last_run=past[-1] if past else None,
            daily=daily_job(past),
        )


class Month(BoardPage):
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
        self.live.poll()
        now = self.live.overlay().get(f"{dataset} {month or ''}".rstrip(), {})
        logs, _ = self.live.history.path.parent, self.locale.translate
        values = month_page.values(status, answer, self.live.runs, logs, now, _)
        self.render("month.html", **values, difference=difference, against=against, problem=problem)


class MonthData(BoardPage):
    """First rows and pictures of a month; the page of the month fetches them from here when they are opened."""

    async def get(self, dataset: str, month: str | None) -> None:
        """Show them."""
        try:
            month_page.neighbours((await self.live.status())["document"], dataset, month)
        except PipelineError as error:
            self.fail(error)
            return
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


class Runs(BoardPage):
    """The history of runs."""

    def get(self) -> None:
        """Show it."""
        self.live.poll()
        before = self.get_query_argument("before", "")
        waiting = self.settings["starter"].waiting()
        self.render("runs.html", waiting=waiting, **runs.table(self.live, before, self.locale.translate))


class Run(BoardPage):
    """One run."""

    async def get(self, run_id: str) -> None:
        """Show it."""
        try:
            followed = await self.live.find(run_id)
        except PipelineError as error:
            self.fail(error)
        else:
            self.render("run.html", **runs.view(followed, self.live.last, self.locale.translate))


class Events(BoardPage):
    """Server-sent events of what changes, for as long as the page is open.

    See https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    _stream: Stream | None = None

    async def get(self) -> None:
        """Send them."""
        stream = self._stream = self.live.subscribe(
            self.get_query_argument("run", ""), self.get_query_argument("as_of", "")
        )
        if stream is None:
            self.set_status(503)
            return
        self.set_header("Content-Type", "text/event-stream")
        # The buffers of a compressor for each open page would be the largest part of the board's memory.
        self.set_header("Content-Encoding", "identity")
        try:
            self.write("retry: 2000\n\n")
            while not stream.is_closed:
                await asyncio.wait_for(self.flush(), _SLOW_S)
                names, cells = await stream.take(_HEARTBEAT_S)
                for name in sorted(names):
                    self.write(f"event: {name}\ndata: {json.dumps(self._data(name, stream, cells))}\n\n")
                if not names:
                    self.write(": still here\n\n")
                await asyncio.wait_for(self.flush(), _SLOW_S)
                await asyncio.sleep(POLL_S)
        except (StreamClosedError, asyncio.TimeoutError):
            pass
        finally:
            self.live.unsubscribe(stream)

    def head(self, *arguments: str, **named: str) -> None:
        """No stream, which would have no end."""
        raise HTTPError(405)

    def on_connection_close(self) -> None:
        """Send no more."""
        if self._stream:
            self._stream.close()

    def _data(self, name: str, stream: Stream, cells: Overlay) -> Any:
        translate, answer = self.locale.translate, self.live.last
        if name == "cells" and answer:
            return changes(answer, translate, cells, [*cells])
        if name == "run" and (followed := self.live.followed.get(stream.run_id)):
            lines = [each for each in followed.events if each[0] > stream.count]
            stream.count = followed.count
            log = self.render_string("log.html", events=lines, event_parts=runs.event_parts).decode()
            return {**runs.news(followed, answer, translate, [*cells]), "log": log}
        return {}


class NotFound(Page):
    """Every other address."""

    def prepare(self) -> None:
        """Show it."""
        super().prepare()
        raise HTTPError(404)
