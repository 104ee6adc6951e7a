"""A new step is one row in `state/steps.py` and one task: this adds one to a copy of the code, after conform."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, Folder, make_folder

from pipeline.sample import SampleSite

ROW = """    StepSpec(
        *("count", "counted", "a file with the number of rows exists", _count_files, 0, 1),
        *("#", "blue", "counted, not loaded", "N", "background: #a9c0ef; color: #0a1f4d;"),
        applies=lambda dataset: dataset.first_month is not None,
    ),
"""

FILES = """def _count_files(dataset: Dataset, month: date | None, raw_name: str) -> dict[str, str]:
    return {"count": f"count/{dataset.name}/{month}.txt"}


"""

TASK = '''

class Count(Step):
    """The number of rows, as a text file."""

    def run(self) -> None:
        """Read the trips file that the step before has published."""
        import pyarrow.parquet as pq

        with self.store.entry(self.files("conform")["trips"]).open() as file:
            rows = pq.read_metadata(file).num_rows
        with self.store.publish(self.files("count")["count"]) as draft:
            draft.write_text(f"{rows}")
        self.done(f"{rows:,} rows")
'''


def _insert(path: Path, before: str, text: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1
    path.write_text(content.replace(before, text + before), encoding="utf-8")


@pytest.fixture
def work(tmp_path: Path, site: SampleSite) -> Folder:
    """A folder whose `python` imports a copy of the package with another step."""
    shutil.copytree(ROOT / "pipeline", tmp_path / "code" / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    steps = tmp_path / "code" / "pipeline" / "state" / "steps.py"
    _insert(steps, "@dataclass(frozen=True)\nclass StepSpec", FILES)
    _insert(steps, '    StepSpec(\n        *("load"', ROW)
    with (tmp_path / "code" / "pipeline" / "tasks" / "lake.py").open("a", encoding="utf-8") as file:
        file.write(TASK)
    folder = make_folder(tmp_path / "work", site.url)
    folder.environment["PYTHONPATH"] = str(tmp_path / "code")
    return folder


def test_a_new_step_is_planned_run_shown_and_done_again(work: Folder) -> None:
    def run(*arguments: str) -> str:
        ended = work.run("python", "-m", "pipeline", *arguments)
        assert ended.returncode == 0, ended.stderr + ended.stdout
        return ended.stdout

    (planned,) = json.loads(run("plan", "green", "2024-01", "--json"))["datasets"]
    assert list(planned["steps"]) == ["download", "conform", "count", "load", "mart"]
    assert run("backfill", "green", "2024-01", "--through", "count")
    assert [path.read_text() for path in work.lake.glob("count/*/*")] == ["500"], "the zones have no such step"
    assert "# counted, not loaded" in run("status", "green", "2024")
    run("backfill", "green", "2024-01")
    status = json.loads(run("status", "green", "2024-01", "--json"))
    (month,) = status["datasets"][0]["months"]
    assert (month["stage"], month["counted"], status["zones"]["stage"]) == ("complete", True, "complete")
    (file,) = work.lake.glob("count/green/*")
    file.write_text("other")
    run("redo", "green", "2024-01", "--from", "count", "--yes")
    assert file.read_text() == "500"
    assert "count green 2024-01: begins" in run("logs", "green", "2024-01", "--step", "count")
