"""Marts: derived tables that people look at, one SELECT per file.

A mart is written in SQL that DuckDB, Postgres and BigQuery all understand, reads the view `trips`, and gets
its month as `:dataset`, `:month` and `:next_month`. Its file begins with comments: what it is, until the first empty
comment line, then `-- datasets:` with the datasets that it is for. Adding a mart is adding a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from pipeline.warehouses.base import Mart

#: All marts by name; read from their files when first asked for, as importing opens no file.
MARTS: Mapping[str, Mart]


def marts_of(dataset_name: str) -> list[Mart]:
    """The marts that are for this dataset, in the order of their names; none for fhv, fhvhv and the zones."""
    return [mart for mart in _marts().values() if dataset_name in mart.datasets]


def parse_mart(name: str, text: str) -> Mart:
    """A mart from its file's text.

    Raises:
        ValueError: the comments at its beginning do not say what it is and for which datasets.
    """
    heading = re.match(r"((?:--.*\n)+?)--\s*\n(?:--.*\n)*?-- datasets: (.+)\n", text)
    if heading is None:
        raise ValueError(f"pipeline/marts/{name}.sql must begin with what it is, `--`, and `-- datasets: …`")
    doc = " ".join(line.removeprefix("--").strip() for line in heading[1].splitlines())
    return Mart(name, doc, text, tuple(word.strip() for word in heading[2].split(",")))


@cache
def _marts() -> dict[str, Mart]:
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql")]
    texts = {file.name.removesuffix(".sql"): file.read_text(encoding="utf-8") for file in files}
    return {name: parse_mart(name, texts[name]) for name in sorted(texts)}


def __getattr__(name: str) -> object:
    if name == "MARTS":
        return _marts()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
