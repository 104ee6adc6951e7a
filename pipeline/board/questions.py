"""Asks the answering process, which has the heavy libraries and ends when it is idle."""

from __future__ import annotations

from typing import Any

from pipeline.settings import Settings


class Questions:
    """A client of `python -m pipeline.board.answers`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def ask(self, question: str, **values: Any) -> Any:
        """The answer to a question."""
        import asyncio

        return await asyncio.to_thread(_answer)

    async def close(self) -> None:
        """End the process."""


def _answer() -> Any:
    import json
    from dataclasses import asdict

    from pipeline.datasets import DATASETS
    from pipeline.cli.options import months_of
    from pipeline.runs.overview import MARKS, document, statuses_of
    from pipeline.state.steps import TABLE

    answer = {
        "document": document(*statuses_of(months_of([*DATASETS], "all"))),
        "marks": {name: {"sign": mark.sign, "meaning": mark.meaning} for name, mark in MARKS.items()},
        "steps": [{"name": each.name, "stage": each.stage, "letter": each.letter} for each in TABLE],
    }
    return json.loads(json.dumps(answer, default=asdict))
