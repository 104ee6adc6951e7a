"""The cookbook's answers are those of the sample data, in DuckDB and in Postgres.

`python tests/test_cookbook.py` writes the answers of DuckDB into the page, for after a change of the sample data.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from conftest import Folder, make_folder
from postgres import PostgresServer

from pipeline.sample.process import sample_process

PAGE = Path(__file__).parent.parent / "docs" / "cookbook.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """A question of the page, the code that answers it, and the answer below the code."""

    question: str
    language: str
    code: str
    answer: str


def _recipes() -> Iterator[Recipe]:
    for section in re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        question, _, rest = re.split(r"^## ", section, flags=re.MULTILINE)[0].partition("\n")
        block = _BLOCK.search(rest)
        assert block is not None, question
        yield Recipe(question, block[1], block[2], rest[block.end() :].strip())


RECIPES = list(_recipes())
in_sql = pytest.mark.parametrize(
    "recipe", [recipe for recipe in RECIPES if recipe.language == "sql"], ids=lambda recipe: recipe.question[:40]
)
in_python = pytest.mark.parametrize(
    "recipe", [recipe for recipe in RECIPES if recipe.language == "python"], ids=lambda recipe: recipe.question[:40]
)


def _fill(folder: Folder) -> None:
    """Run the page's own commands; only the port of the sample site is another one."""
    block = _BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert block is not None
    demo, site, backfill, sql = (shlex.split(line) for line in block[2].splitlines())
    with sample_process(*site[5:-1]) as url:
        for words in (demo, [url if word == "http://127.0.0.1:8000" else word for word in backfill], sql):
            ended = folder.run(*words, timeout_s=600)
            assert ended.returncode == 0, ended.stderr


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The table as the page has it: null is an empty cell, numbers are on the right."""
    numbers = [
        not any(isinstance(row[place], str) or hasattr(row[place], "year") for row in rows)
        for place in range(len(names))
    ]
    lines = [names, ["--:" if number else "---" for number in numbers]]
    lines += [["" if value is None else str(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ask_duckdb(folder: Folder, sql: str) -> str:
    with duckdb.connect(str(folder.path / "data" / "sample" / "warehouse.duckdb"), read_only=True) as connection:
        result = connection.execute(sql)
        return _table([column[0] for column in result.description or ()], result.fetchall())


def _run(folder: Folder, code: str) -> str:
    ended = folder.run("python", "-c", code)
    assert ended.returncode == 0, ended.stderr
    return f"```text\n{ended.stdout}```"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = make_folder(tmp_path_factory.mktemp("cookbook") / "work", "http://127.0.0.1:9")
    _fill(folder)
    return folder


@pytest.fixture(scope="module")
def ask_postgres(filled: Folder, postgres: PostgresServer) -> Iterator[Callable[[str], str]]:
    """Loads the same lake into a database; nothing is downloaded again."""
    import psycopg

    name = "taxi_cookbook"
    postgres.execute(f"CREATE DATABASE {name}")
    try:
        places = ("--lake", "data/sample/lake", "--warehouse", postgres.url_of(name))
        for words in ("yellow green 2024-01..2024-03", "fhv fhvhv 2024-01"):
            ended = filled.run("pipeline", "backfill", *words.split(), *places, timeout_s=600)
            assert ended.returncode == 0, ended.stderr

        def ask(sql: str) -> str:
            with psycopg.connect(postgres.url_of(name)) as connection:
                cursor = connection.execute(sql.encode())
                return _table([column.name for column in cursor.description or ()], cursor.fetchall())

        yield ask
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@in_sql
def test_a_question_in_sql_has_the_answer_of_the_page_in_duckdb(filled: Folder, recipe: Recipe) -> None:
    assert _ask_duckdb(filled, recipe.code) == recipe.answer


@in_sql
def test_a_question_in_sql_has_the_answer_of_the_page_in_postgres(
    ask_postgres: Callable[[str], str], recipe: Recipe
) -> None:
    assert ask_postgres(recipe.code) == recipe.answer


@in_python
def test_a_question_in_python_has_the_answer_of_the_page(filled: Folder, recipe: Recipe) -> None:
    assert _run(filled, recipe.code) == recipe.answer


def test_the_questions_are_numbered_and_none_comes_twice() -> None:
    numbers = [recipe.question.partition(". ")[0] for recipe in RECIPES]
    assert numbers == [str(place) for place in range(1, len(RECIPES) + 1)]
    assert len({recipe.code for recipe in RECIPES}) == len(RECIPES) > 20


def test_the_contents_name_every_part() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^- \[(.+)\]\(#", text, re.MULTILINE) == re.findall(r"^## (.+)$", text, re.MULTILINE)


def _write(folder: Folder) -> None:
    _fill(folder)
    text = PAGE.read_text(encoding="utf-8")
    for recipe in RECIPES:
        answer = (_ask_duckdb if recipe.language == "sql" else _run)(folder, recipe.code)
        end = text.index(recipe.code) + len(recipe.code) + len("```\n")
        rest = text[end:].removeprefix("\n").removeprefix(recipe.answer).lstrip("\n")
        text = f"{text[:end]}\n{answer}\n" + (f"\n{rest}" if rest else "")
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        _write(make_folder(Path(temporary) / "work", "http://127.0.0.1:9"))
    subprocess.run(["git", "diff", "--stat", str(PAGE)], check=False)
    sys.exit()
