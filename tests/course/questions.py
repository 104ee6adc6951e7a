"""The questions of docs/course.sql: what they ask, of which files, and the published answers."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.datasets.published import estimated_bytes, published_months
from pipeline.months import month_range, parse_month

ROOT = Path(__file__).parents[2]

#: Where the files come from, by the name in docs/course.sql; None is the default, TLC's site.
SOURCES = {"tlc": None, "mirror": "https://github.com/DataTalksClub/nyc-tlc-data/releases/download"}
#: Of a row in a gzipped CSV of any dataset, about.
_CSV_ROW_BYTES = 20
#: Larger exit codes are those of a command that a signal stopped.
_SIGNALS = 128


@dataclass(frozen=True, order=True)
class Files:
    """The files that some questions are about; such questions share a warehouse, which has nothing else."""

    source: str
    dataset: str
    period: str

    def __str__(self) -> str:
        return f"{self.dataset} {self.period} ({self.source})"

    @property
    def months(self) -> list[date]:
        first, _, last = self.period.partition("..")
        first, last = (first if "-" in first else f"{first}-01"), last or first
        return list(month_range(parse_month(first), parse_month(last if "-" in last else f"{last}-12")))

    @property
    def rows(self) -> int:
        """As TLC has published them; the mirror differs by less than a tenth."""
        return sum(published_months(self.dataset)[month].rows for month in self.months)

    @property
    def downloads(self) -> dict[tuple[str, str, date], int]:
        """About how many bytes each file has, by source, dataset and month."""
        published = published_months(self.dataset)
        return {
            (self.source, self.dataset, month): published[month].rows * _CSV_ROW_BYTES
            if self.source == "mirror"
            else estimated_bytes(self.dataset, [month])
            for month in self.months
        }


@dataclass(frozen=True)
class Question:
    """One query with its published answer; `answer` is "?" if none is known."""

    homework: str
    files: Files
    asks: str
    answer: str
    sql: str

    def __str__(self) -> str:
        return f"{self.homework}, {self.files}: {self.asks}"


def all_questions() -> list[Question]:
    """The questions, in the order of docs/course.sql."""
    text = (ROOT / "docs" / "course.sql").read_text(encoding="utf-8")
    pattern = r"^-- (\d{4}.*?) \| (\w+) \| (\w+) (\S+)\n-- (.*)\n-- answer: (.*)\n(SELECT[^;]*);$"
    found = [
        Question(homework, Files(source, dataset, period), asks, answer, sql)
        for homework, source, dataset, period, asks, answer, sql in re.findall(pattern, text, re.MULTILINE)
    ]
    assert len(found) == text.count("\n-- answer: "), "docs/course.sql has a question of another form"
    return found


def run_pipeline(*arguments: str, environment: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command of this environment; its standard error is passed on.

    Raises:
        SystemExit: a signal stopped it, such as Ctrl-C.
    """
    command = [str(Path(sys.executable).parent / "pipeline"), *arguments]
    env = {**os.environ, **environment}
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=env, cwd=cwd)
    if ended.returncode > _SIGNALS:
        sys.exit(ended.returncode)
    return ended


def environment_of(files: Files, folder: Path, source: str | None) -> dict[str, str]:
    """The settings: a lake for each source, so that a month is downloaded once, and a warehouse for these files."""
    settings = {
        "PIPELINE_LAKE": str(folder / files.source / "lake"),
        "PIPELINE_WAREHOUSE": f"duckdb:///{folder.resolve()}/{files.source}/{files.dataset}_{files.period}.duckdb",
        "PIPELINE_LOGS": str(folder / files.source / "logs"),
    }
    return settings | ({"PIPELINE_SOURCE": source} if source else {})


def answer_of(question: Question, environment: Mapping[str, str], cwd: Path) -> str:
    """What the warehouse answers, in the form of docs/course.sql."""
    ended = run_pipeline("sql", question.sql, "--format", "csv", environment=environment, cwd=cwd)
    rows = list(csv.reader(io.StringIO(ended.stdout)))[1:]
    return " ; ".join(" | ".join(row) for row in rows) if not ended.returncode else "(failed)"
