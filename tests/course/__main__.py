"""Answer the course's questions on real files: `make course`, see docs/course.md.

Downloads what is missing, so that a run that was stopped continues. Exit code 1: an answer differs or a month failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from questions import SOURCES, all_questions, answer_of, environment_of, run_pipeline

from pipeline.units import counted, size

#: Of a loaded row, about.
_ROW_BYTES = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/course", description="Answer the questions of docs/course.sql.")
    parser.add_argument("--only", default="", help='questions whose title has this text, such as "2026 module 1"')
    parser.add_argument("--data", type=Path, default=Path("data/course"), help="folder for lakes and warehouses")
    parser.add_argument("--tlc", default=SOURCES["tlc"], help="address of TLC's site, or of a copy")
    parser.add_argument("--mirror", default=SOURCES["mirror"], help="address of the mirror of the old CSVs")
    parser.add_argument("--list", action="store_true", help="only say what would be downloaded")
    options = parser.parse_args()
    asked = [question for question in all_questions() if options.only in str(question)]
    if not asked:
        print(f"no question of docs/course.sql has {options.only!r} in its title", file=sys.stderr)
        return 2
    # Small ones first, so that the first answers come soon.
    listed = sorted({question.files for question in asked}, key=lambda files: (files.rows, files))
    downloads = {file: size for files in listed for file, size in files.downloads.items()}
    for source in dict.fromkeys(files.source for files in listed):
        sizes = [bytes_ for file, bytes_ in downloads.items() if file[0] == source]
        address = getattr(options, source) or "TLC's site"
        print(f"from {address}: {counted(len(sizes), 'month')}, about {size(sum(sizes))}; what is there already stays")
    kept = sum(downloads.values()) * 2 + sum(files.rows for files in listed) * _ROW_BYTES
    print(f"{counted(len(asked), 'question')}; lakes and warehouses in {options.data}: about {size(kept)}", flush=True)
    if options.list:
        return 0
    # Ctrl-C reaches the command too, which ends cleanly and says so by its exit code.
    signal.signal(signal.SIGINT, lambda *_: None)
    wrong = 0
    for files in listed:
        environment = environment_of(files, options.data, getattr(options, files.source))
        ended = run_pipeline("backfill", files.dataset, files.period, environment=environment, cwd=Path.cwd())
        if ended.returncode:
            print(ended.stdout)
        for question in (each for each in asked if each.files == files):
            found = answer_of(question, environment, Path.cwd()) if not ended.returncode else "(no data)"
            known = question.answer != "?"
            is_wrong = found.startswith("(") or (known and found != question.answer)
            wrong += is_wrong
            print("FAIL" if is_wrong else "ok  " if known else "    ", question)
            print(f"     {found}" + (f"; published: {question.answer}" if is_wrong and known else ""), flush=True)
    verdict = f"{wrong} of {counted(len(asked), 'answer')} differ or are missing"
    print(verdict if wrong else f"{counted(len(asked), 'question')} answered; what is published agrees")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
