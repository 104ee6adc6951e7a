"""Answer the course's questions on real files: `make course`, see docs/course.md.

Downloads what is missing, so that a run that was stopped continues. Exit code 1: an answer differs or a month failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from questions import SOURCES, all_questions, answer_of, environment_of, run_pipeline

_GB = 1e9


def main() -> int:
    parser = argparse.ArgumentParser(prog="make course", description="Answer the questions of docs/course.sql.")
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
    listed = sorted({question.files for question in asked}, key=lambda files: (files.bytes, files))
    months = {(files.source, files.dataset, month): None for files in listed for month in files.months}
    total = 0.0
    for source in SOURCES:
        once = [files for files in listed if files.source == source]
        size = sum(
            sum(part.bytes / len(part.months) for part in once if month in part.months and part.dataset == dataset)
            / sum(month in part.months and part.dataset == dataset for part in once)
            for of, dataset, month in months
            if of == source
        )
        total += size
        if once:
            print(f"from {getattr(options, source) or 'TLC'}: about {size / _GB:.2f} GB, each file once")
    loaded = sum(files.rows for files in listed)
    print(f"{len(asked)} questions about {len(months)} files; the lake, about {total * 2 / _GB:.1f} GB, and a warehouse")
    print(f"for each of {len(listed)} sets of files, about {loaded * 50 / _GB:.1f} GB, are kept in {options.data}", flush=True)
    if options.list:
        return 0
    wrong = 0
    for files in listed:
        environment = environment_of(files, options.data, getattr(options, files.source))
        ended = run_pipeline("backfill", files.dataset, files.period, environment=environment, cwd=Path.cwd())
        if ended.returncode:
            print(ended.stdout)
        for question in (each for each in asked if each.files == files):
            found = answer_of(question, environment, Path.cwd()) if not ended.returncode else "(no data)"
            mark = "ok  " if found == question.answer else "    " if question.answer == "?" else "FAIL"
            wrong += mark == "FAIL" or found.startswith("(")
            print(f"{mark} {question}\n     {found}" + (f"; published: {question.answer}" * (mark == "FAIL")), flush=True)
    print(f"{wrong} of {len(asked)} answers differ" if wrong else f"all {len(asked)} questions are answered")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
