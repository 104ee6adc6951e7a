"""Write the parts of the reference that are declared in the code: `python docs/reference.py` renews the pages.

A part is between `<!-- generated: name -->` and `<!-- end -->`; what is around it is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import luigi

import pipeline
from pipeline.cli import cli
from pipeline.conform.check import limits_of
from pipeline.datasets import DATASETS, ZONES, Column, Dataset, Rule
from pipeline.errors import PipelineError, StoreError
from pipeline.marts import all_marts, notes_of
from pipeline.runs import events
from pipeline.runs.history import Failure, Run
from pipeline.settings import FIELDS, Field
from pipeline.state.steps import STEPS
from pipeline.warehouses.tables import LEDGER, MONTH, MONTH_DOC, describe
from pipeline.warehouses.views import declared_views

FOLDER = Path(__file__).parent / "reference"
RULES = Path(__file__).parent.parent / "pipeline" / "datasets" / "rules.py"

_TYPES = {"str": "text", "int": "number", "float": "number", "bool": "true or false"}


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: object) -> str:
    return f"`{text}`" if text else ""


def settings() -> str:
    """Every setting with its default, what is allowed, and its meaning."""
    rows = (
        (_code(name), _code(_shown(row.default)) or "none", _allowed(row), row.help) for name, row in FIELDS.items()
    )
    return _table(("setting", "default", "allowed", "what"), rows)


def _shown(default: object) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def _allowed(row: Field) -> str:
    if row.choices:
        return ", ".join(map(_code, row.choices))
    if row.bounds is None:
        return "text"
    whole = "whole number" if isinstance(row.default, int) else "number"
    return f"{whole}, {row.bounds[0]:g} to {row.bounds[1]:,.0f}"


def _columns(columns: Iterable[Column]) -> str:
    rows = ((_code(each.name), each.type.partition("[")[0], each.unit, _meaning(each)) for each in columns)
    return _table(("column", "type", "unit", "meaning"), rows)


def _meaning(column: Column) -> str:
    return describe(replace(column, unit="", codes={}))


def _codes(columns: Iterable[Column]) -> str:
    listed = ((each.name, describe(replace(each, doc="", unit=""))) for each in columns if each.codes)
    return "\n".join(f"- {_code(name)}: {text.removeprefix('Codes: ')}" for name, text in listed)


def _of_dataset(dataset: Dataset) -> str:
    month = (Column(MONTH, "date32[day]", doc=MONTH_DOC),) if dataset.first_month else ()
    rows = [
        (_code(each.name), _code(each.tlc_name), each.type.partition("[")[0], each.unit, _meaning(each))
        for each in dataset.columns
    ]
    rows += [(_code(each.name), "", each.type.partition("[")[0], "", each.doc) for each in month]
    codes = _codes(dataset.columns)
    table = _table(("column", f"in `{dataset.tlc_name}`", "type", "unit", "meaning"), rows)
    return f"{table}\n\nCodes:\n\n{codes}" if codes else table


def tables() -> str:
    """Every table, view and mart with its columns."""
    parts = []
    for dataset in (*DATASETS.values(), ZONES):
        text = f"{dataset.doc} The view `{dataset.tlc_name}` has the same columns with TLC's names."
        parts.append(f"### {dataset.name}\n\n{text}\n\n{_of_dataset(dataset)}")
    for name, (doc, columns) in LEDGER.items():
        parts.append(f"### {name}\n\n{doc}\n\n{_columns(columns)}")
    renamed = {dataset.tlc_name for dataset in (*DATASETS.values(), ZONES)}
    for view in declared_views(DATASETS.values(), ZONES):
        if view.name not in renamed:
            parts.append(f"### {view.name}\n\n{view.doc}\n\n{_columns(view.columns)}")
    for mart in all_marts().values():
        rows = _table(("column", "meaning"), ((_code(name), text) for name, text in mart.columns.items()))
        notes = " ".join(notes_of(mart).split())
        parts.append("\n\n".join(filter(None, (f"### {mart.name}", mart.doc, rows, notes))))
    return "\n\n".join(parts)


def checks() -> str:
    """Every rule of every dataset, with its limit and the reason of the limit."""
    rules: dict[Rule, list[str]] = {}
    for dataset in (*DATASETS.values(), ZONES):
        for rule in dataset.rules:
            rules.setdefault(rule, []).append(dataset.name)
    reasons = _reasons()
    return _table(
        ("rule", "severity", "counts", "allowed", "datasets", "reason of the limit"),
        (
            (_code(rule.name), rule.severity, rule.doc, limits_of(rule), _listed(names), reasons.get(rule.name, ""))
            for rule, names in rules.items()
        ),
    )


def _listed(names: list[str]) -> str:
    return "all four" if names == list(DATASETS) else "all" if len(names) > len(DATASETS) else ", ".join(names)


def _reasons() -> dict[str, str]:
    """By rule: the comment above it."""
    found = re.finditer(r'((?:^ *# .*\n)+)(?:\w+ = )? *Rule\(\s*"(\w+)"', RULES.read_text("utf-8"), re.MULTILINE)
    return {match[2]: " ".join(line.strip(" #") for line in match[1].splitlines()) for match in found}


def event_table() -> str:
    """Every event with its fields; then the objects in them."""
    common = {each.name for each in fields(events.StepEvent)}
    rows = []
    for event in _classes(events.Event):
        if event is events.RunFinished:
            record = f"{_fields(Run)}, `outcome` (text)"
            rows.append((_code(event.event), "The run has ended; this is its record in the history.", record))
        elif event is not events.StepEvent:
            skip = common if issubclass(event, events.StepEvent) else set()
            rows.append((_code(event.event), (event.__doc__ or "").replace("None", "null"), _fields(event, skip)))
    objects = {"in `months` of `run_started`": events.MonthPlan, "in `failures` of `run_finished`": Failure}
    more = ((where, (each.__doc__ or "").splitlines()[0], _fields(each)) for where, each in objects.items())
    return f"{_table(('event', 'what', 'fields'), rows)}\n\n{_table(('object', 'what', 'fields'), more)}"


def _classes(event: type[events.Event]) -> Iterator[type[events.Event]]:
    for each in event.__subclasses__():
        yield each
        yield from _classes(each)


def _fields(each: type, skip: Iterable[str] = ()) -> str:
    return ", ".join(f"{_code(one.name)} ({_type(str(one.type))})" for one in fields(each) if one.name not in skip)


def _type(annotation: str) -> str:
    name, _, optional = annotation.partition(" | ")
    if listed := re.fullmatch(r"(?:list|Sequence)\[(\w+)\]", name):
        return f"list of {_TYPES.get(listed[1], 'objects')}{'s' * (listed[1] in ('str', 'int'))}"
    if name.startswith(("dict", "Mapping")):
        return "object"
    return _TYPES[name] + (" or null" if optional else "")


def error_table() -> str:
    """Every error class."""
    classes = [*PipelineError.__subclasses__(), *StoreError.__subclasses__()]
    rows = ((_code(each.__name__), _code(each.code), "yes" * each.retryable, each.__doc__) for each in classes)
    return _table(("class", "code", "retryable", "meaning"), rows)


def commands() -> str:
    """Every command with its summary."""
    summaries = ((_code(f"pipeline {name}"), command.get_short_help_str(80)) for name, command in cli.commands.items())
    return _table(("command", "what it does"), summaries)


def tasks() -> str:
    """Every task with its parameters."""
    parts = []
    for name in pipeline.__all__:
        task = getattr(pipeline, name)
        if isinstance(task, type):
            rows = [
                (_code(f"--{each.replace('_', '-')}"), _default(task, each, parameter), _help(parameter))
                for each, parameter in task.get_params()
            ]
            doc = " ".join((task.__doc__ or "").split())
            parts.append(
                f"### {name}\n\n{doc}\n\n{_table(('parameter', 'default', 'what'), rows) if rows else 'No parameters.'}"
            )
    return "\n\n".join(parts)


def _help(parameter: luigi.Parameter) -> str:
    # Luigi lists the choices in the order of a set.
    choices = f": {', '.join(STEPS)}" if isinstance(parameter, luigi.ChoiceParameter) else ""
    return re.sub(r" Choices: \{.*\}", "", parameter.description or "") + choices


def _default(task: type[luigi.Task], name: str, parameter: luigi.Parameter) -> str:
    if not parameter.has_task_value(task.__name__, name):
        return "(required)"
    default = parameter.task_value(task.__name__, name)
    return _code(parameter.serialize(default)) if default not in (None, "") else "none"


PARTS = {
    "errors": error_table,
    "commands": commands,
    "tasks": tasks,
    "settings": settings,
    "tables": tables,
    "checks": checks,
    "events": event_table,
}


def renewed(text: str) -> str:
    """The text of a page with its generated parts as the code declares them."""
    return re.sub(
        r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for page in sorted(FOLDER.glob("*.md")):
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
