"""What the buttons do: each starts the command that a user would type."""

from __future__ import annotations

from pipeline.board.handler import Page


class Action(Page):
    """Start a command; only with `--allow-runs`."""

    def post(self, action: str) -> None:
        """Start it, and show its run."""
        self.redirect("/runs")
