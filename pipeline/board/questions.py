"""Asks the process that answers (`answers.py`), which is started when it is needed and ended when there are no more."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from typing import Any

from pipeline.errors import PipelineError, UnexpectedError
from pipeline.settings import Settings

#: The longest answer; the status has about 500 bytes for each month.
_MOST_BYTES = 1 << 26
#: By the text of a question: where its answer arrives.
Waiting = dict[str, "asyncio.Future[dict[str, Any]]"]

_ENDED = {"error": UnexpectedError("the process that answers ended; try again").to_dict()}


class Questions:
    """Questions to one process, which answers several at once."""

    def __init__(self, settings: Settings, *, idle_s: float = 60.0) -> None:
        self._settings, self._idle_s = settings, idle_s
        #: The process, what it was asked, and who reads its answers; no process while there are no questions.
        self._process: Process | None = None
        self._waiting: Waiting = {}
        self._reader: asyncio.Task[None] | None = None
        self._starting, self._is_closed = asyncio.Lock(), False
        self._timer: asyncio.TimerHandle | None = None
        #: What is being asked: the same question is asked once.
        self._asked: dict[str, asyncio.Task[dict[str, Any]]] = {}

    @property
    def process_id(self) -> int | None:
        """The id of the process; None while there is none."""
        return self._process.pid if self._process else None

    async def ask(self, question: str, **arguments: Any) -> Any:
        """The answer.

        Raises:
            PipelineError: the question has none; or the process ended, and may be asked again.
        """
        text = json.dumps({"question": question, **arguments}, sort_keys=True)
        if text not in self._asked:
            self._asked[text] = asyncio.create_task(self._ask(text))
            self._asked[text].add_done_callback(lambda _: self._asked.pop(text, None))
        # A page that is closed does not cancel what another one waits for.
        values = await asyncio.shield(self._asked[text])
        if "error" in values:
            raise PipelineError.from_dict(values["error"])
        return values["answer"]

    async def close(self) -> None:
        """End the process; questions that are being answered get an error."""
        async with self._starting:
            self._is_closed = True
            self._end()
            if self._reader:
                await self._reader

    async def _ask(self, text: str) -> dict[str, Any]:
        async with self._starting:
            if self._is_closed:
                return _ENDED
            process = self._process or await self._start()
        answer = self._waiting[text] = asyncio.get_running_loop().create_future()
        _send(process, {"id": text, **json.loads(text)})
        values: dict[str, Any] = await answer
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._end_if_idle)
        return values

    async def _start(self) -> Process:
        """Start it. Its first line of input has the settings: arguments and environment can be read by others."""
        # In a session of its own: Ctrl-C in a terminal is for the board, which then ends it.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline.board.answers"),
            stdin=PIPE,
            stdout=PIPE,
            limit=_MOST_BYTES,
            start_new_session=True,
        )
        _send(process, {"settings": {name: str(value) for name, value in vars(self._settings).items()}})
        self._process, self._waiting = process, {}
        self._reader = asyncio.create_task(self._read(process, self._waiting))
        return process

    async def _read(self, process: Process, waiting: Waiting) -> None:
        """Take the answers until the process ends."""
        assert process.stdout is not None
        try:
            # A line without its end is cut: the process was ended while it wrote.
            while (line := await process.stdout.readline()).endswith(b"\n"):
                values = json.loads(line)
                waiting.pop(values["id"]).set_result(values)
        finally:
            if self._process is process:
                self._process = None
            for answer in waiting.values():
                answer.set_result(_ENDED)
            await process.wait()

    def _end_if_idle(self) -> None:
        if not self._waiting:
            self._end()

    def _end(self) -> None:
        if self._process:
            with suppress(ProcessLookupError):  # It has ended by itself.
                self._process.kill()
            self._process = None


def _send(process: Process, values: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(values).encode() + b"\n")
