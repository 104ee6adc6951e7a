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
from tempfile import NamedTemporaryFile
from threading import Thread

from pipeline.board.form import Form
from pipeline.board.handler import Page
from pipeline.board.live import POLL_S, Live
from pipeline.errors import PipelineError, UsageError
from pipeline.runs import processes
from pipeline.settings import child_command, suggested_command

_MOST_STARTED, _MOST_OUTPUT = 4, 10_000
#: A command that makes its plan longer than this is shown in the list of runs meanwhile.
_WAIT_S = 10.0
_KEPT_FILES = 20


@dataclass
class Started:
    """A command that was started here."""

    process: subprocess.Popen[bytes]
    asked: str
    output: Path
    began: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        # Takes the exit code, so that the process does not stay a zombie.
        Thread(target=self.process.wait, daemon=True).start()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

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

    def start(self, words: Sequence[str]) -> Started:
        """Start `pipeline` with these words and the settings of the board.

        Raises:
            UsageError: as many commands as are allowed run already; or it could not be started.
        """
        if sum(each.is_running for each in self._started) >= _MOST_STARTED:
            raise UsageError(f"{_MOST_STARTED} commands that were started here still run; wait for one, or cancel it")
        arguments, environment = child_command(*words)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in sorted(self._folder.glob("*.log"))[: -_KEPT_FILES + 1]:
                old.unlink(missing_ok=True)
            name = f"{datetime.now(timezone.utc):%Y-%m-%dT%H%M%S.%f}-"
            # Only this user can read it.
            with NamedTemporaryFile(prefix=name, suffix=".log", dir=self._folder, delete=False) as output:
                process = subprocess.Popen(  # noqa: S603 - every value was validated.
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise UsageError(f"{self._folder}: the command cannot be started: {error.strerror}") from error
        started = Started(process, suggested_command(*words), Path(output.name))
        ended = [each for each in self._started if not each.is_running]
        self._started = [each for each in self._started if each not in ended[:-_MOST_STARTED]] + [started]
        return started

    def run_id(self, started: Started) -> str:
        """The id of its run; empty if that is not in the history."""
        # An older run may have had a process with the same number.
        runs = (run for run in reversed(self._live.runs) if run.began >= started.began)
        return next((run.id for run in runs if run.process == started.process.pid), "")

    def waiting(self) -> list[Started]:
        """The commands, newest first, that have no run in the history: they make their plan, or failed before it."""
        return [each for each in reversed(self._started) if not self.run_id(each)]

    async def run_of(self, started: Started) -> str:
        """The id of its run as soon as that is in the history; empty if the command ended before, or takes longer."""
        end, is_running = time.monotonic() + _WAIT_S, True
        while is_running and time.monotonic() < end:
            is_running = started.is_running  # Before reading: a command that has ended begins no run.
            self._live.poll()
            if run_id := self.run_id(started):
                return run_id
            await asyncio.sleep(POLL_S)
        return ""


class _FormPage(Page):
    """The form of an action, with its problems or else with what the action would do."""

    async def show(self, form: Form, problems: Sequence[str], *, has_preview: bool = False) -> None:
        """Show it."""
        question, preview, command = form.question(), None, ""
        if has_preview and not problems:
            command = suggested_command(*form.words())
            try:
                preview = await self.ask(question[0], **question[1]) if question else None
            except PipelineError as error:
                problems, command = [error.words], ""
        if problems:
            self.set_status(400)
        self.render(
            "actions.html",
            form=form,
            problems=problems,
            preview=preview,
            command=command,
            most_rows=200,
        )


class Choose(_FormPage):
    """Choose what to do."""

    async def get(self) -> None:
        """Show the form, and what it would do once it is filled in."""
        form = Form(self, self.get_query_argument("action", "backfill"), await self.live.status())
        is_filled = "action" in self.request.arguments
        await self.show(form, form.problems() if is_filled else [], has_preview=is_filled)


class Action(_FormPage):
    """Start a command, or cancel a run."""

    async def post(self, action: str) -> None:
        """Start it, and show its run as soon as that is in the history."""
        if action == "cancel":
            self._cancel(self.get_body_argument("run", ""))
            return
        form = Form(self, action, await self.live.status())
        if problems := form.problems():
            await self.show(form, problems)
            return
        starter: Starter = self.settings["starter"]
        try:
            started = starter.start(form.words())
        except UsageError as error:
            await self.show(form, [str(error)])
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
