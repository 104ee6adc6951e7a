"""Marts: derived tables for analysis, one SELECT per file.

A mart is written in SQL that DuckDB, Postgres and BigQuery all support, reads a dataset's table or the views `trips`
(yellow, green) and `for_hire_trips` (fhv, fhvhv), and gets its month as `:dataset`, `:month` and `:next_month`. Its
file starts with comments: a description up to the first empty comment line, then `-- datasets:` with the datasets that
it is built for, then `-- columns:` and on each line after it a column with its meaning. To add a mart, add a file.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

from pipeline.warehouses.base import Mart


@cache
def all_marts() -> dict[str, Mart]:
    """All marts by name, in alphabetical order."""
    files = {file.name: file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql")}
    names = sorted(name.removesuffix(".sql") for name in files)
    return {name: parse_mart(name, files[f"{name}.sql"].read_text(encoding="utf-8")) for name in names}


def marts_of(dataset_name: str) -> list[Mart]:
    """The marts that are built for this dataset, in alphabetical order; none for the zones."""
    return [mart for mart in all_marts().values() if dataset_name in mart.datasets]


def parse_mart(name: str, text: str) -> Mart:
    """A mart from the text of its file.

    Raises:
        ValueError: the comments at its start have no description or no datasets.
    """
    heading = re.match(r"((?:--.*\n)+?)--\s*\n(?:--.*\n)*?-- datasets: (.+)\n(?:-- columns:\n((?:--   .*\n)+))?", text)
    if heading is None:
        raise ValueError(f"pipeline/marts/{name}.sql must start with a description, `--`, and `-- datasets: …`")
    doc = " ".join(line.removeprefix("--").strip() for line in heading[1].splitlines())
    columns = dict(re.findall(r"^--   (\w+): (.+)$", heading[3] or "", re.MULTILINE))
    return Mart(name, doc, text, tuple(word.strip() for word in heading[2].split(",")), columns)


def notes_of(mart: Mart) -> str:
    """The other comments at the start of its file: what the mart leaves out, and by which limits."""
    heading = re.match(r"(?:--.*\n)+", mart.sql)
    parts = heading[0].split("\n--\n", 2) if heading else []
    return re.sub("^-- ?", "", parts[2], flags=re.MULTILINE).rstrip() if len(parts) > 2 else ""
