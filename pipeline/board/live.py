"""What changes while pages are open: the status of months, and the events of running runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pipeline.board.questions import Questions
from pipeline.runs.history import History

#: After this time the status is asked again when a page is opened.
_FRESH_S = 2.0


class Live:
    """Keeps the last answer to `status`, and asks again in the background."""

    def __init__(self, logs: str, questions: Questions) -> None:
        self.history, self._questions = History(logs, silent=True), questions
        self.luigid: Any = None
        self._answer: dict[str, Any] | None = None
        self._asked, self._asking = 0.0, asyncio.Lock()

    async def status(self) -> dict[str, Any]:
        """The last answer to `status`; waits only for the first."""
        async with self._asking:
            if self._answer is None or time.monotonic() - self._asked > _FRESH_S:
                self._answer = await self._questions.ask("status")
                self._asked = time.monotonic()
        return self._answer

    def start(self) -> None:
        """Begin to watch the history of runs."""

    def stop(self) -> None:
        """Stop watching."""
