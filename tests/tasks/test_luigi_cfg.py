"""A luigi.cfg that Luigi cannot use, whichever file it is: one line that names file and place, and exit code 2."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest
from conftest import ROOT, Folder, make_folder

CONTENTS: dict[str, tuple[bytes, str]] = {
    "a byte order mark": (b"\xef\xbb\xbf[pipeline]\nlake = x\n", "as UTF-8 without a byte order mark"),
    "a letter in Latin-1": (
        b"[pipeline]\nlake = x\nlogs = caf\xe9\n",
        "'utf-8' codec can't decode byte 0xe9 in position 30: invalid continuation byte; save the file as plain ASCII",
    ),
    "an option twice": (
        b"[pipeline]\nlake = x\nlake = y\n",
        "[line 3]: option 'lake' in section 'pipeline' already exists",
    ),
    "a section twice": (b"[core]\n[pipeline]\n[core]\n", "[line 3]: section 'core' already exists"),
    "no section": (b"lake = x\n", "File contains no section headers. file: 'luigi.cfg', line: 1 'lake = x\\n'"),
    "a line that is no option": (b"[pipeline]\nlake\n", "[line 2]: 'lake\\n'"),
}

VALUES: dict[str, tuple[str, str]] = {
    "read while Luigi is imported": ("[core]\nautoload_range = maybe\n", "[core] autoload_range: Not a boolean: maybe"),
    "a variable that is not set": ("[scheduler]\nretry_count = ${NO_SUCH}\n", "[scheduler] retry_count: Config refers"),
    "a comment behind a value": ("[worker]\nkeep_alive = true  # yes\n", "[worker] keep_alive: cannot interpret 'true"),
    "no number": ("[resources]\ntlc = many\n", "[resources] tlc: invalid literal for int() with base 10: 'many'"),
}

TASK = ("Conform", "--dataset", "green", "--month", "2024-01")


@pytest.fixture
def work(tmp_path: Path) -> Folder:
    return make_folder(tmp_path / "work", "")


def _is_one_line(folder: Folder, message: str, *command: str, subject: str = "") -> None:
    ended = folder.run(*(command or ("pipeline", "status")))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"pipeline: {subject}")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_that_cannot_be_parsed_is_named_with_the_line(work: Folder, content: str) -> None:
    written, message = CONTENTS[content]
    (work.path / "luigi.cfg").write_bytes(written)
    _is_one_line(work, message, subject=f"{work.path / 'luigi.cfg'}: ")


def test_the_invalid_file_is_named_and_not_another_one(work: Folder) -> None:
    other = work.path / "other.cfg"
    other.write_bytes(CONTENTS["an option twice"][0])
    work.environment["LUIGI_CONFIG_PATH"] = str(other)
    _is_one_line(work, "[line 3]", "python", "-m", "pipeline", "doctor", subject=f"{other}: ")


@pytest.mark.parametrize("value", VALUES)
def test_an_option_of_luigis_own_that_it_cannot_read_is_named(work: Folder, value: str) -> None:
    written, message = VALUES[value]
    (work.path / "luigi.cfg").write_text(written)
    _is_one_line(work, f"luigi.cfg: {message}")


def test_all_invalid_values_are_reported_at_once_by_plain_luigi_too(work: Folder) -> None:
    (work.path / "luigi.cfg").write_text("[core]\nworkers = x\n[retcode]\nnot_run = y\n[resources]\ncpu = z\n")
    ended = work.luigi(*TASK)
    assert ended.returncode == 2
    assert [line.strip().partition(": invalid")[0] for line in ended.stderr.splitlines()] == [
        "pipeline: luigi.cfg: [core] workers",
        "luigi.cfg: [retcode] not_run",
        "luigi.cfg: [resources] cpu",
    ]


def _a_folder(path: Path) -> str:
    path.mkdir()
    return "is a folder"


def _a_dead_link(path: Path) -> str:
    path.symlink_to("nowhere")
    return "is a broken link"


def _not_for_us(path: Path) -> str:
    path.touch(mode=0)
    return "is a broken link, or its permissions deny reading"


UNREADABLE = [_a_folder, _a_dead_link] + ([_not_for_us] if os.geteuid() else [])


@pytest.mark.parametrize("make", UNREADABLE)
def test_a_file_that_luigi_skips_without_a_warning_is_an_error_under_luigi_too(work: Folder, make: object) -> None:
    path = work.path / "luigi.cfg"
    path.unlink()
    assert callable(make)
    message = f"{path}: {make(path)}"
    _is_one_line(work, message)
    _is_one_line(work, message, "luigi", "--module", "pipeline", *TASK, "--local-scheduler")


def test_a_file_that_the_variable_names_must_exist(work: Folder) -> None:
    work.environment["LUIGI_CONFIG_PATH"] = "/no/such/luigi.cfg"
    _is_one_line(work, "LUIGI_CONFIG_PATH=/no/such/luigi.cfg: there is no such file")
    ended = work.luigi(*TASK)
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)


def test_plain_luigi_fails_on_such_a_file_before_it_imports_us_and_doctor_says_why(work: Folder) -> None:
    """When Luigi learns to say it itself, the row in README.md can be removed."""
    (work.path / "luigi.cfg").write_bytes(CONTENTS["a byte order mark"][0])
    ended = work.run("luigi", "--module", "no_such_module", *TASK)
    assert ended.returncode == 1
    assert "no_such_module" not in ended.stderr
    _is_one_line(work, "without a byte order mark", "pipeline", "doctor")


def test_every_configuration_file_of_the_project_is_ascii_since_luigi_reads_it_in_the_encoding_of_the_locale() -> None:
    files = [ROOT / "luigi.cfg", *(ROOT / "docs").glob("*.cfg"), *(ROOT / "docker").glob("*.cfg")]
    assert len(files) == 3
    assert [str(path) for path in files if not path.read_bytes().isascii()] == []


@pytest.mark.parametrize("encoding", ["shift_jis", "gbk", "euc_kr", "ascii", "cp1252"])
def test_luigi_cfg_reads_the_same_in_every_encoding(encoding: str) -> None:
    assert (ROOT / "luigi.cfg").read_text(encoding=encoding) == (ROOT / "luigi.cfg").read_text(encoding="utf-8")


def test_a_misspelt_variable_is_a_warning_with_the_nearest_name(work: Folder) -> None:
    work.environment |= {"PIPELINE_LAEK": "x", "pipeline_logs": "y", "PIPELINE_ID": "17", "PIPELINE_SOURCE": ""}
    ended = work.pipeline("head", "green", "2024-01")
    assert [line for line in ended.stderr.splitlines() if "environment" in line] == [
        "PIPELINE_LAEK in the environment is not a setting and has no effect; did you mean PIPELINE_LAKE?",
        "pipeline_logs in the environment is not a setting and has no effect; did you mean PIPELINE_LOGS?",
    ]


def test_an_old_name_of_an_option_works_with_one_warning(work: Folder) -> None:
    """Its luigi.cfg is one of version 0.1.0, which counted the writers of all kinds of warehouse as one resource."""
    text = (work.path / "luigi.cfg").read_text()
    (work.path / "luigi.cfg").write_text(
        re.sub(r"^duckdb = 1\npostgresql = 4\nbigquery = 4$", "warehouse = 3", text, flags=re.M)
    )
    program = "from pipeline.tasks.luigi_options import get_config, prepare_luigi; prepare_luigi()"
    shown = "print(dict(get_config().items('resources')))"
    ended = work.run("python", "-c", f"{program}; {shown}")
    limits = {"tlc": "4", "cpu": "4", "warehouse": "3", "duckdb": "3", "postgresql": "3", "bigquery": "3"}
    assert ast.literal_eval(ended.stdout) == limits
    message = (
        "[resources] warehouse in luigi.cfg is an old name of [resources] duckdb, postgresql and bigquery; "
        "it works until version 0.4.0, so write the new name\n"
    )
    assert ended.stderr == message
    assert work.pipeline("status").stderr.count(message) == 1
    assert work.luigi("ConformZones", "--help").stderr.count(message) == 1
