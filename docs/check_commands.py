"""Runs the shell commands of the pages, `make docs-check`, in the order in which a reader types them.

    python docs/check_commands.py docs/tutorial.md       # one page; without arguments, all of them

Each page has a copy of the project as its working folder, and the sample site in place of TLC's. The environment is
installed already, so `make run` is `pipeline demo`, and `make test` does nothing. An HTML comment before
a ```sh fence says what is special: `<!-- not run: needs docker -->`, or `<!-- serves until Ctrl-C -->`, which is
ended by SIGTERM after ten seconds and must then exit with 0.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.months import add_months
from pipeline.sample.site import SampleSite

ROOT = Path(__file__).parent.parent
PAGES = [
    *("README.md", "README.ko.md", "docs/tutorial.md", "docs/faq.md", "docs/troubleshooting.md", "docs/course.md"),
    *("docs/ko/tutorial.md", "docs/ko/course.md"),
    *(
        path.relative_to(ROOT).as_posix()
        for room in ("how-to", "reference")
        for path in sorted((ROOT / "docs" / room).glob("*.md"))
    ),
]
_FENCE = re.compile(r"(?:^<!-- (?P<note>[^>]*?) -->\n)?^```sh\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVES = "serves until Ctrl-C"
_NOT_RUN = "not run: "
_TIME_LIMIT_S = 900
_MAKE = 'make() { case "$*" in run) pipeline demo;; test) ;; *) command make "$@";; esac; }'


@dataclass(frozen=True)
class Block:
    line: int
    code: str
    note: str

    @property
    def why_not(self) -> str | None:
        """Why the block is not run, or None."""
        return self.note.removeprefix(_NOT_RUN) if self.note.startswith(_NOT_RUN) else None

    def in_bash(self) -> str:
        """As it is put into the script of its page."""
        if self.note == _SERVES:
            return f"timeout --preserve-status 10 {self.code}"
        return self.code


def blocks(page: Path) -> Iterator[Block]:
    """The ```sh blocks of a page; a comment of another kind before one is none of ours."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        yield Block(text.count("\n", 0, found.start("code")), found["code"], found["note"] or "")


def _copy_of_the_project(folder: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(Path(sys.prefix))


def _run(page: str, source: str) -> bool:
    """Run the blocks of a page in one shell, and say at which one it failed."""
    found = list(blocks(ROOT / page))
    lines = ["set -euo pipefail", _MAKE, "trap 'code=$?; set +e; kill $(jobs -p) 2>/dev/null; wait; exit $code' EXIT"]
    for block in found:
        if block.why_not:
            print(f"  not run, line {block.line}: {block.why_not}", flush=True)
        else:
            lines += [f"echo {shlex.quote(f'=== {page}:{block.line}')}", block.in_bash()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _copy_of_the_project(folder)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIPELINE_", "LUIGI_"))}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "PIPELINE_SOURCE": source,
            "BROWSER": "true",
        }
        output = folder / "output"
        with output.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", "\n".join(lines)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(_TIME_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
                code = process.wait()
        text = output.read_text(errors="replace")
    if code:
        print(f"{text.rpartition('=== ')[2]}  exit code {code}", flush=True)
    return code == 0


def main(pages: list[str]) -> int:
    if missing := [page for page in pages if not (ROOT / page).is_file()]:
        print(
            f"no such page: {', '.join(missing)}; give paths from the top of the repository, such as docs/tutorial.md"
        )
        return 2
    failed = []
    # Published as far as TLC would be, for `pipeline latest`.
    last = add_months(date.today().replace(day=1), -3)
    with SampleSite(scale=0.01, last=last) as site:
        for page in pages or [page for page in PAGES if (ROOT / page).is_file()]:
            print(page, flush=True)
            if not _run(page, site.url):
                failed.append(page)
    print(f"failed: {', '.join(failed)}" if failed else "every command was run, or says why not")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
