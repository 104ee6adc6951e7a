"""Asks the process that answers (`answers.py`), which is started when it is needed and ended when nobody asks."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pipeline.errors import PipelineError, UnexpectedError
from pipeline.settings import Settings

#: A process whose input was closed gets this long to end.
_END_S = 5.0
#: The longest answer; the status has about 500 bytes for each month.
_MOST_BYTES = 1 << 26
_ENDED = "the process that answers ended; try again"


class Questions:
    """Questions to one process; at most `most` are with it at once, and the others wait."""

    def __init__(
        self,
        settings: Settings,
        *,
        idle_s: float = 60.0,
        most: int = 8,
        command: Sequence[str] = (sys.executable, "-m", "pipeline.board.answers"),
    ) -> None:
        self._settings, self._idle_s, self._command = settings, idle_s, command
        self._slots, self._starting = asyncio.Semaphore(most), asyncio.Lock()
        self._child: _Child | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: What is being answered, by the text of the question: the same question is asked once.
        self._asked: dict[str, asyncio.Task[dict[str, Any]]] = {}

    @property
    def process_id(self) -> int | None:
        """The id of the process; None while there is none."""
        return self._child.process.pid if self._child and self._child.is_alive else None

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
            if self._timer:
                self._timer.cancel()
            if self._child:
                await self._child.end()

    async def _ask(self, text: str) -> dict[str, Any]:
        async with self._slots:
            if self._timer:
                self._timer.cancel()
            async with self._starting:
                if self._child is None or not self._child.is_alive:
                    self._child = await _Child.start(self._command, self._settings)
            answer = await self._child.ask(text)
            if not self._child.waiting:
                self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._child.close)
            return answer


class _Child:
    """A running process that answers."""

    def __init__(self, process: Process) -> None:
        self.process = process
        #: By the id of a question: where its answer arrives.
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        #: Whether it takes further questions.
        self.is_alive = True
        self._ids = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str], settings: Settings) -> _Child:
        """Start it. Its first line of input has the settings: arguments and environment can be read by others."""
        # In a session of its own: Ctrl-C in a terminal is for the board, which then ends it.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, limit=_MOST_BYTES, start_new_session=True
        )
        child = cls(process)
        await child._write({"settings": {name: str(value) for name, value in vars(settings).items()}})
        return child

    async def ask(self, text: str) -> dict[str, Any]:
        """The answer to the question, or an error once the process has ended."""
        self._ids += 1
        number, future = self._ids, asyncio.get_running_loop().create_future()
        self.waiting[number] = future
        try:
            if self.is_alive:
                await self._write({"id": number, **json.loads(text)})
            else:
                future.set_result({"error": UnexpectedError(_ENDED).to_dict()})
            answer: dict[str, Any] = await future
            return answer
        finally:
            del self.waiting[number]

    def close(self) -> None:
        """Close its input, which ends it."""
        self.is_alive = False
        if self.process.stdin:
            self.process.stdin.close()

    async def end(self) -> None:
        """End it, and wait until it has ended."""
        self.close()
        await self._reader

    async def _write(self, values: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # It has ended, which `_read` notices.
            self.process.stdin.write(json.dumps(values).encode() + b"\n")
            await self.process.stdin.drain()

    async def _read(self) -> None:
        """Take the answers until the process ends."""
        assert self.process.stdout is not None
        try:
            # A line without its end is cut: the process was ended while it wrote.
            while (line := await self.process.stdout.readline()).endswith(b"\n"):
                values = json.loads(line)
                future = self.waiting.get(values["id"])
                if future and not future.done():
                    future.set_result(values)
        finally:
            self.is_alive = False
            for future in self.waiting.values():
                if not future.done():
                    future.set_result({"error": UnexpectedError(_ENDED).to_dict()})
            try:
                await asyncio.wait_for(self.process.wait(), _END_S)
            except asyncio.TimeoutError:
                self.process.kill()
                await self.process.wait()
