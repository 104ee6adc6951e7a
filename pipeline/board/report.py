"""The report as a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.board.grid import standalone


def static_page(report: Mapping[str, Any]) -> str:
    """The report as one HTML page that needs no other file."""
    values = {"report": report, "problems": (), "warehouse": report["warehouse"]}
    return standalone("report.html", values)
