"""The pages of the board."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from pipeline.board import month_page, runs
from pipeline.board.grid import changes, key_of, view
from pipeline.board.handler import Page
from pipeline.board.live import POLL_S, Overlay, Stream
from pipeline.errors import PipelineError
from pipeline.settings import suggested_command

#: A comment so often shows both sides that the other one still exists; a page that reads nothing for long is left.
_HEARTBEAT_S, _SLOW_S = 15, 30


class Grid(Page):
    """All months."""

    async def get(self) -> None:
        """Show it."""
        answer, past = await self.live.status(), self.live.runs
        commands = {
            "first": suggested_command("backfill", "green", "latest"),
            "refresh": suggested_command("refresh", "--apply"),
        }
        self.render(
            "grid.html",
            **view(answer, self.locale.translate, self.live.overlay()),
            commands=commands,
            last_run=past[-1] if past else None,
            workers=self.live.luigid.workers if self.live.luigid else None,
            # The newest run that a schedule may have started.
            daily=next((run for run in reversed(past) if run.asked.startswith("pipeline latest")), None),
        )


class Month(Page):
    """Everything about one month, or about the zones."""

    async def get(self, dataset: str, month: str | None) -> None:
        """Show it, with the difference from the month before or from that of `?against=2024-02`."""
        against = self.get_query_argument("against", "")
        status = await self.live.status()
        month_page.neighbours(status["document"], dataset, month)
        answer = await self.ask("month", dataset=dataset, month=month)
        difference, problem = answer["diff"], ""
        if month and against:
            try:
                other = month_page.other_month(against, month)
                difference = await self.ask("diff", dataset=dataset, month=month, against=other)
            except PipelineError as error:
                problem = str(error)
        self.live.poll()
        logs, live = self.live.history.path.parent, self.live.overlay().get(key_of(dataset, month), {})
        values = month_page.values(status, answer, self.live.runs, logs, self.locale.translate)
        self.render("month.html", **values, live=live, difference=difference, against=against, problem=problem)


class MonthData(Page):
    """First rows and pictures of a month; the page of the month fetches them from here when they are opened."""

    async def get(self, dataset: str, month: str | None) -> None:
        """Show them."""
        month_page.neighbours((await self.live.status())["document"], dataset, month)
        answers, problems = dict[str, Any](rows=None, marts=None), list[str]()

        async def ask(question: str) -> None:
            try:
                answers[question] = await self.ask(question, dataset=dataset, month=month)
            except PipelineError as error:
                problems.append(str(error))

        await asyncio.gather(*map(ask, ("rows", "marts") if month else ("rows",)))
        self.render("month_data.html", **answers, label=key_of(dataset, month), problems=problems)


class Report(Page):
    """Pictures of the marts, of all months or of those that `?dataset=green&period=2024` names."""

    async def get(self) -> None:
        """Show them."""
        document = (await self.live.status())["document"]
        datasets, period = self.get_query_arguments("dataset"), self.get_query_argument("period", "")
        answer, problems = None, list[str]()
        try:
            language = self.locale.code
            answer = await self.ask("report", datasets=datasets, period=period, language=language)
        except PipelineError as error:
            problems.append(str(error))
        self.render(
            "report.html",
            report=answer,
            problems=problems,
            warehouse=document["warehouse"],
            all_datasets=[each["dataset"] for each in document["datasets"]],
            datasets=datasets,
            period=period,
        )


class Runs(Page):
    """The history of runs."""

    def get(self) -> None:
        """Show it."""
        self.live.poll()
        table = runs.table(self.live, self.get_query_argument("before", ""))
        self.render("runs.html", waiting=self.settings["starter"].waiting(), **table)


class Run(Page):
    """One run."""

    async def get(self, run_id: str) -> None:
        """Show it."""
        followed = await self.live.find(run_id)
        self.render("run.html", **runs.view(followed, self.live.last, self.locale.translate))


class Events(Page):
    """Server-sent events of what changes, for as long as the page is open.

    See https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    _stream: Stream | None = None

    async def get(self) -> None:
        """Send them."""
        run_id, as_of = self.get_query_argument("run", ""), self.get_query_argument("as_of", "")
        stream = self._stream = self.live.subscribe(run_id, as_of)
        if stream is None:
            self.set_status(503)
            return
        self.set_header("Content-Type", "text/event-stream")
        # The buffers of a compressor for each open page would be the largest part of the board's memory.
        self.set_header("Content-Encoding", "identity")
        try:
            self.write("retry: 2000\n\n")
            while not stream.is_closed:
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
            self.live.streams.discard(stream)

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
            log = self.render_string("log.html", events=lines).decode()
            return {**runs.news(followed, answer, translate, [*cells]), "log": log}
        return {}


class NotFound(Page):
    """Every other address."""

    def prepare(self) -> None:
        """Show it."""
        super().prepare()
        raise HTTPError(404)
