"""One signal ends a command at any time, and the next run removes what killed runs have left."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Folder

from pipeline.cli.output import draft_of
from pipeline.runs.events import Inbox

#: For `python -c`: a module, during whose import the process sends itself a signal, and a command.
_AT_IMPORT = """
import os, signal, sys
module, number, *arguments = sys.argv[1:]

def watch(event, found):
    if event == "import" and found[0] == module and module not in sys.modules:
        os.kill(os.getpid(), int(number))

sys.addaudithook(watch)
sys.argv = ["bin/pipeline", *arguments]
from pipeline.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize(
    ("module", "lines"), [("luigi", 0), ("pyarrow.lib", 1), ("pipeline.cli.progress", 0), ("pyarrow.parquet.core", 1)]
)
def test_a_signal_during_an_import_ends_the_command_without_a_traceback(
    folder: Folder, module: str, lines: int, number: int
) -> None:
    ended = folder.run("python", "-c", _AT_IMPORT, module, str(int(number)), "backfill", "green", "2024-01")
    assert ended.returncode == 128 + number, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert len(re.findall("^pipeline: stopped", ended.stderr, re.MULTILINE)) == lines, ended.stderr
    assert lines or not ended.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only /proc lists the modules of a process")
@pytest.mark.parametrize("command", [("pipeline",), ("python", "-m", "pipeline")], ids=["pipeline", "python-m"])
def test_ctrl_c_right_after_the_start_ends_the_command_with_130_and_no_output(
    folder: Folder, command: tuple[str, ...]
) -> None:
    process = folder.start(*command, "status", "green", "2024")
    until = time.monotonic() + 30
    while b"_ssl" not in Path(f"/proc/{process.pid}/maps").read_bytes():
        assert time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130


def test_a_program_that_imports_the_package_keeps_its_own_signal_handlers(folder: Folder) -> None:
    program = "import signal, pipeline; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert folder.run("python", "-c", program).stdout == "True\n"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_a_run_sweeps_the_folders_of_killed_runs_and_leaves_those_of_living_ones(short: Path) -> None:
    (short / "taxi-killed").mkdir()
    (short / "taxi-notes").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(short / "taxi-killed" / "reports"))
    with Inbox() as living, Inbox():
        assert Path(living.path).exists()
        assert not (short / "taxi-killed").exists()
    assert [path.name for path in short.iterdir()] == ["taxi-notes"]


_KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from pipeline.cli.output import draft_of
with draft_of(Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_draft_of_a_killed_writer_is_deleted_by_the_next_and_that_of_a_running_one_stays(tmp_path: Path) -> None:
    out, other = tmp_path / "out[1].csv", tmp_path / ".out[1].csv.notes.part"
    other.write_text("a file of the user")
    subprocess.run([sys.executable, "-c", _KILLED_WRITER, str(out)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    with draft_of(out) as living:
        living.write(b"whole")
        with draft_of(out) as second:
            second.write(b"another")
        assert out.read_bytes() == b"another"
    assert out.read_bytes() == b"whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, out.name]
