"""What the buttons do: each starts the command that a user would type, as a process that does not need the board.

Promise: the command is a list of values that were validated, and never passes a shell. What runs is in the history.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from pipeline.board.form import ACTIONS, MOST_WORKERS, PREVIEWS, ZONES, Form
from pipeline.board.handler import Page
from pipeline.board.live import POLL_S, Live
from pipeline.errors import PipelineError, UsageError
from pipeline.runs import processes
from pipeline.settings import child_command, suggested_command

_MOST_STARTED, _MOST_OUTPUT = 4, 10_000
#: A command that makes its plan longer than this is shown in the list of runs meanwhile.
_WAIT_S = 10.0
_KEPT_FILES = 20
_MOST_ROWS = 200


@dataclass
class Started:
    """A command that was started here."""

    process: subprocess.Popen[bytes]
    asked: str
    output: Path
    began: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    #: The run in the history, once it is there.
    run_id: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended; if it has, its process is gone afterwards."""
        return self.process.poll() is None

    @property
    def text(self) -> str:
        """What the command has printed; of a long text the end."""
        with suppress(OSError):
            return self.output.read_bytes()[-_MOST_OUTPUT:].decode(errors="replace").strip()
        return ""


class Starter:
    """Starts commands, and knows them until they are in the history."""

    def __init__(self, logs: str, live: Live) -> None:
        self._folder, self._live = Path(logs) / "board", live
        self._started: list[Started] = []
        self._reaping: asyncio.Task[None] | None = None

    def start(self, words: Sequence[str]) -> Started:
        """Start `pipeline` with these words and the settings of the board.

        Raises:
            UsageError: as many commands as are allowed run already; or it could not be started.
        """
        if sum(each.is_running for each in self._started) >= _MOST_STARTED:
            raise UsageError(f"{_MOST_STARTED} commands that were started here still run; wait for one, or cancel it")
        arguments, environment = child_command(*words)
        try:
            output = self._new_file()
            with output.open("ab") as stream:
                process = subprocess.Popen(  # noqa: S603 - every value was validated.
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise UsageError(f"{self._folder}: the command cannot be started: {error.strerror}") from error
        started = Started(process, suggested_command(*words), output)
        self._started.append(started)
        if self._reaping is None or self._reaping.done():
            self._reaping = asyncio.create_task(self._reap())
        return started

    def waiting(self) -> list[Started]:
        """The commands, newest first, that have no run in the history: they make their plan, or failed before it."""
        by_process = {run.process: run for run in self._live.runs}
        for each in self._started:
            run = by_process.get(each.process.pid)
            # An older run may have had a process with the same number.
            if run and run.began >= each.began:
                each.run_id = run.id
        return [each for each in reversed(self._started) if not each.run_id]

    async def run_of(self, started: Started) -> str:
        """The id of its run as soon as that is in the history; empty if the command ended before, or takes longer."""
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            is_running = started.is_running
            self._live.poll()
            if started not in self.waiting():
                return started.run_id
            if not is_running:
                break
            await asyncio.sleep(POLL_S)
        return ""

    def _new_file(self) -> Path:
        """A file for what a command prints, which only this user can read; the oldest ones are deleted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(self._folder.glob("*.log"))[: -_KEPT_FILES + 1]:
            old.unlink(missing_ok=True)
        path = self._folder / f"{datetime.now(timezone.utc):%Y-%m-%dT%H%M%S.%f}.log"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return path

    async def _reap(self) -> None:
        """Ask for the exit codes, so that no process stays a zombie."""
        while [each for each in self._started if each.is_running]:
            await asyncio.sleep(1)
        self._started = [each for each in self._started if each in self.waiting()][-_MOST_STARTED:]


class _FormPage(Page):
    """The form, its problems, and the preview."""

    async def show(self, action: str, *, problems: Sequence[str] = (), starts: bool = False) -> Form | None:
        """Show the form; with `starts`, return it instead if it is valid."""
        status = await self.live.status()
        datasets = [each["dataset"] for each in status["document"]["datasets"]]
        steps, _ = [each["name"] for each in status["steps"]], self.locale.translate
        form, preview, command = Form.of(self, action, datasets, steps[-1]), None, ""
        is_asked = starts or "action" in self.request.arguments
        if is_asked and not problems:
            problems = form.problems(datasets, steps, _)
            if starts and not problems:
                return form
        if is_asked and not problems:
            command = suggested_command(*form.words(steps[-1]))
            try:
                if question := form.question:
                    preview = PREVIEWS[question[0]](await self.ask(question[0], **question[1]), _)
            except PipelineError as error:
                problems, command = [error.words], ""
        if problems:
            self.set_status(400)
        self.render(
            "actions.html",
            form=form,
            actions=ACTIONS,
            datasets=[*datasets, ZONES],
            steps=steps,
            problems=problems,
            preview=preview,
            command=command,
            most_workers=MOST_WORKERS,
            most_rows=_MOST_ROWS,
        )
        return None


class Choose(_FormPage):
    """The form of an action, and what it would do."""

    async def get(self) -> None:
        """Show it."""
        await self.show(self.get_query_argument("action", "backfill"))


class Action(_FormPage):
    """Start a command, or cancel a run."""

    async def post(self, action: str) -> None:
        """Start it, and show its run as soon as that is in the history."""
        if action == "cancel":
            self._cancel(self.get_body_argument("run", ""))
            return
        if (form := await self.show(action, starts=True)) is None:
            return
        steps = [each["name"] for each in (self.live.last or {})["steps"]]
        starter: Starter = self.settings["starter"]
        try:
            started = starter.start(form.words(steps[-1]))
        except UsageError as error:
            await self.show(action, problems=[str(error)])
            return
        run_id = await starter.run_of(started)
        if run_id or started.is_running:
            self.redirect(f"/runs/{run_id}".rstrip("/"), status=303)
        else:  # Such as an invalid setting, or nothing to do.
            self.set_status(200 if started.process.returncode == 0 else 409)
            self.render("started.html", started=started)

    def _cancel(self, run_id: str) -> None:
        run = self.live.history.run(run_id)
        if run.outcome != "running":
            raise UsageError(f"{run_id}: only a running run can be cancelled; this one is {run.outcome}")
        if not re.search(r"\bpipeline\b", processes.command(run.process)):
            raise UsageError(f"{run_id}: process {run.process} is not this run; it may run on another machine")
        try:
            os.kill(run.process, signal.SIGINT)
        except OSError as error:
            raise UsageError(f"{run_id}: process {run.process} cannot be cancelled: {error.strerror}") from error
        self.redirect(f"/runs/{run_id}", status=303)
