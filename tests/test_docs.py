"""The documentation says what is there, and nothing else: help, README, reference, diary, decisions, changelog."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import inspect
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

import click
import luigi
import pytest
import requests
from commands import stopped_by
from luigi.cmdline_parser import CmdlineParser
from luigi.task_register import Register
from pages import anchors

import pipeline
from pipeline.cli import cli, import_command
from pipeline.datasets import DATASETS, ZONES, codes
from pipeline.datasets.published import published_months
from pipeline.marts import all_marts
from pipeline.months import month_range, parse_month
from pipeline.sample.__main__ import _parser as sample_parser
from pipeline.sample.eras import parquet_columns
from pipeline.settings import pipeline as section
from pipeline.tasks import luigi_options
from pipeline.version import __version__
from pipeline.warehouses.tables import LEDGER
from pipeline.warehouses.views import declared_views

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MANY_MACHINES = ROOT / "docs" / "how-to" / "many-machines.md"
CHANGELOG = ROOT / "CHANGELOG.md"
SURPRISES = ROOT / "docs" / "surprises.md"
REFERENCE = ROOT / "docs" / "reference"
DECISIONS = [page for page in sorted((ROOT / "docs" / "decisions").glob("*.md")) if page.stem != "index"]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

#: Where the project's own files are; a working copy has others, too.
FOLDERS = (".ci", ".devcontainer", ".github", "benchmarks", "docker", "docs", "pipeline", "tests")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# --- help


TASKS = [
    getattr(pipeline, name)
    for name in pipeline.__all__
    if inspect.isclass(getattr(pipeline, name)) and issubclass(getattr(pipeline, name), luigi.Task)
]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)


def test_every_task_of_ours_is_exported_by_the_package() -> None:
    named = {task.__name__ for task in TASKS}
    # What only other tasks derive from is in no list of names.
    tasks = {name: Register.get_task_cls(name) for name in Register.task_names()}
    bases = {base.__name__ for task in tasks.values() for base in task.__mro__[1:]}
    for name, task in tasks.items():
        own = task.__module__.startswith("pipeline.") and not issubclass(task, luigi.Config)
        concrete = task.output is not luigi.Task.output or issubclass(task, luigi.WrapperTask)
        assert name in named or not (own and concrete) or name in bases, name


@every_task
def test_every_task_says_what_is_there_when_it_is_done(task: type[luigi.Task]) -> None:
    assert (task.__doc__ or "").strip()


def _explained(parameter: luigi.Parameter) -> bool:
    # Luigi appends the choices.
    return bool(re.sub(r"Choices: \{.*\}", "", parameter.description or "").strip())


@every_task
def test_every_parameter_of_every_task_has_help(task: type[luigi.Task]) -> None:
    assert [name for name, parameter in task.get_params() if not _explained(parameter)] == []


def test_every_setting_has_help() -> None:
    assert [name for name, parameter in section.get_params() if not _explained(parameter)] == []


COMMANDS = {name: import_command(name) for name in cli.commands}


@pytest.mark.parametrize("command", [cli, *COMMANDS.values()], ids=lambda command: command.name)
def test_every_command_and_everything_it_takes_has_help(command: click.Command) -> None:
    text = command.help or ""
    assert command is cli or len(text.partition("\n")[0]) <= 55, "`pipeline --help` would cut it"
    assert text.strip()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
        else:
            for word in re.findall(r"[A-Z]{3,}", parameter.make_metavar(click.Context(command))):
                assert word in text, f"{word} of {command.name} is not explained"


# --- what the warehouse has


def test_the_page_of_tables_names_every_table_view_and_mart() -> None:
    by_hand, columns = _read(REFERENCE / "tables.md").split("<!-- generated: tables -->")
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", by_hand, re.MULTILINE)))
    views = [view.name for view in declared_views(DATASETS.values(), ZONES)]
    assert sorted(listed) == sorted([*DATASETS, ZONES.name, *LEDGER, *views, *all_marts()])
    assert [name for name in listed if not re.search(rf"^### {name}$|`{name}`", columns, re.MULTILINE)] == []


# --- the reference: what it names; links


def test_the_reference_says_what_the_code_declares(reference: ModuleType) -> None:
    pages = {page: _read(page) for page in sorted(REFERENCE.glob("*.md"))}
    assert {name for text in pages.values() for name in re.findall(r"<!-- generated: (\w+) -->", text)} == {
        *reference.PARTS
    }
    outdated = [page.name for page, text in pages.items() if reference.renewed(text) != text]
    assert outdated == [], "renew them with: python docs/reference.py"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The script that writes the generated parts of the reference."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


@every_task
def test_the_page_of_tasks_mentions_every_task_by_hand(task: type[luigi.Task]) -> None:
    assert _mentions(_read(REFERENCE / "tasks.md").partition("<!-- generated")[0], task.__name__)


def test_the_page_of_python_names_every_public_name() -> None:
    text = _read(REFERENCE / "python.md")
    names = [f"pipeline.{name}" for name in pipeline.__all__ if not inspect.isclass(getattr(pipeline, name))]
    more = ("pipeline.conform.conform_file", "pipeline.datasets.DATASETS", "pipeline.tasks.process.TaskProcessContext")
    assert [name for name in (*names, *more) if not _mentions(text, name)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_commands_names_every_command(name: str) -> None:
    assert _mentions(_read(REFERENCE / "commands.md"), f"pipeline {name}")


def test_the_page_of_commands_says_which_have_no_q_and_v() -> None:
    sentence = re.search(r"all but (.*) have `-q` and `-v`", _read(REFERENCE / "commands.md"))
    assert sentence is not None
    lacking = {
        name for name, command in COMMANDS.items() if "quiet" not in {parameter.name for parameter in command.params}
    }
    assert set(re.findall(r"`(\w+)`", sentence[1])) == lacking


def test_the_page_of_settings_lists_every_setting() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", _read(REFERENCE / "settings.md"), re.MULTILINE)
    assert [name for name, _ in section.get_params() if name not in listed] == []


def test_the_page_of_exit_codes_has_those_of_luigi_cfg_and_of_the_help() -> None:
    listed = set(re.findall(r"^\| (\d+) \|", _read(REFERENCE / "exit-codes.md"), re.MULTILINE))
    assert listed == {"0", "3", *luigi_options.default_options()["retcode"].values()}
    assert listed == set(re.findall(r"\b(\d) ", (cli.help or "").partition("Exit codes: ")[2]))


def test_the_index_of_decisions_lists_every_decision() -> None:
    text = _read(ROOT / "docs" / "decisions" / "index.md")
    assert re.findall(r"^- \[.*\]\(([\w-]+)\.md\): \S", text, re.MULTILINE) == [page.stem for page in DECISIONS]


def test_the_site_has_every_page_in_its_contents() -> None:
    """Sphinx says it, too, but only where it is installed."""
    docs = ROOT / "docs"
    listed = set(re.findall(r"^[\w/-]+$", _read(docs / "index.md"), re.MULTILINE))
    pages = {page.relative_to(docs).with_suffix("").as_posix() for page in docs.rglob("*.md")}
    decisions = {f"decisions/{page.stem}" for page in DECISIONS}
    assert pages - listed == {"index", *decisions}
    assert listed - pages == set()


@pages
def test_every_relative_link_leads_to_something(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _read(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), f"{target} of {page.name}"
        if anchor:
            assert anchor in anchors(found), f"{target} of {page.name}"


# --- command lines in the pages


def _snippets(text: str) -> Iterator[str]:
    """The lines of fenced and of indented code, continued ones as one, and code within sentences."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^(?: {4}|\t)(.*)$", rest, re.MULTILINE)
    for block in [*fenced, "\n".join(indented)]:
        yield from block.replace("\\\n", " ").splitlines()
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest))


def _command_lines(text: str) -> list[list[str]]:
    """The commands of ours in a page, as words, without what stands before and behind them in the shell."""
    found = []
    for snippet in _snippets(text):
        if not re.match(r"(\$ +)?([A-Z_]+=\S+ +)*([\w./-]*/)?(luigi|pipeline|make|python3? -m \S+)(\s|$)", snippet):
            continue
        words: list[str] = []
        for word in [*shlex.split(snippet.removeprefix("$ "), comments=True), ";"]:
            if word in ("&", "&&", "|", ";", ">"):
                if words:
                    found.append(words)
                words = []
            elif words or not re.match(r"[A-Z_]+=", word):
                words.append(word)
    return [[Path(words[0]).name, *words[1:]] for words in found]


def _refuse_luigi(arguments: list[str]) -> None:
    """Let Luigi read the line as it would, and make the task."""
    if arguments in ([], ["--help"]):
        return
    assert arguments[:2] == ["--module", "pipeline"]
    with CmdlineParser.global_instance([word for word in arguments if word != "…"]) as parser:
        if "…" not in arguments:
            parser.get_task_obj()


def _refuse_pipeline(arguments: list[str]) -> None:
    """Let click read the line as it would, without running it; a command's bare name is only a name."""
    command: click.Command = cli
    if arguments and arguments[0] in COMMANDS:
        command, arguments = COMMANDS[arguments[0]], arguments[1:]
    if arguments and {"--help", "-h", "--version"}.isdisjoint(arguments):
        assert not isinstance(command, click.Group), f"no command in {arguments}"
        command.make_context(command.name, [word for word in arguments if word != "…"], resilient_parsing=False)


def _refuse(words: list[str]) -> None:
    """Raise, or exit, when a command line of ours would not be taken."""
    name, *arguments = words
    if name == "luigi":
        _refuse_luigi(arguments)
    elif name == "pipeline":
        _refuse_pipeline(arguments)
    elif name == "make":
        targets = re.findall(r"^([a-z-]+):", _read(ROOT / "Makefile"), re.MULTILINE)
        assert [word for word in arguments if "=" not in word and word not in targets] == []
    elif name.startswith("python") and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]) is not None
        if arguments[1] == "pipeline.sample":
            sample_parser().parse_args(arguments[2:])


# Luigi says so of the default of its own parameter.
@pytest.mark.filterwarnings('ignore:Parameter "param_name" with value "None"')
@pages
def test_every_command_line_in_the_pages_would_be_taken(page: Path) -> None:
    for words in _command_lines(_read(page)):
        try:
            _refuse(words)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{page.name}: {shlex.join(words)}: {error!r}")


def test_the_command_lines_of_the_package_s_own_words_would_be_taken() -> None:
    found = _command_lines(pipeline.__doc__ or "")
    assert {words[0] for words in found} == {"luigi", "pipeline"}
    for words in found:
        _refuse(words)


def test_the_readme_shows_how_to_begin() -> None:
    found = _command_lines(_read(README))
    assert {"luigi", "pipeline", "make"} <= {words[0] for words in found}
    assert {("make", "run"), ("make", "test")} <= {tuple(words) for words in found}
    assert any(words[:3] == ["luigi", "--module", "pipeline"] for words in found)


@pytest.mark.parametrize(
    "line",
    [
        "luigi --module pipeline Bakfill --datasets green --first 2024-01 --last 2024-03",
        "luigi --module pipeline Backfill --data green --first 2024-01 --last 2024-03 --until 2024-05",
        "luigi --module pipeline Backfill --datasets blue --first 2024-01 --last 2024-03",
        "luigi --module pipeline Backfill --datasets green --first 2024-01",
        "luigi --module pipeline Load --dataset green --month January --local-scheduler",
        "luigi --module pipeline Load --month 2024-01 --no-such-option 1",
        "luigi --module another Load --dataset green --month 2024-01",
        "pipeline backfil green 2024-01",
        "pipeline backfill green 2024-01 --worker 3",
        "pipeline backfill --workers 2",
        "make running",
        "python -m pipeline.simple",
        "python -m pipeline.sample --prt 8000",
    ],
)
def test_a_mistaken_command_line_would_be_found(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = f"Text.\n\n```bash\n$ {line}   # a remark\n```\n\nMore text, with `{line}` in it.\n\n    A=b bin/{line} &\n"
    found = _command_lines(page)
    assert found == [shlex.split(line)] * 3
    with pytest.raises((Exception, SystemExit)):
        _refuse(found[0])


def test_every_shell_block_of_the_docs_is_run_by_docs_check_or_says_why_not() -> None:
    spec = importlib.util.spec_from_file_location("check_commands", ROOT / "docs" / "check_commands.py")
    assert spec is not None
    assert spec.loader is not None
    check = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = check  # Its dataclass looks for its module.
    spec.loader.exec_module(check)
    texts = {page: _read(page) for page in [*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")]}
    found = {page.relative_to(ROOT).as_posix() for page, text in texts.items() if "\n```sh\n" in text}
    # test_cookbook.py has the commands of the cookbook; the matrix of versions takes an hour.
    assert found - {*check.PAGES} == {"docs/cookbook.md", "docs/decisions/dependencies.md"}
    blocks = [block for page in texts for block in check.blocks(page)]
    assert {block.note for block in blocks if not block.why_not} <= {"", "serves until Ctrl-C"}
    assert sum(not block.why_not for block in blocks) > 40


# --- settings in luigi.cfg


def test_the_command_falls_back_on_what_luigi_cfg_says() -> None:
    written = configparser.ConfigParser(interpolation=None)
    written.read_string(_read(ROOT / "luigi.cfg"))
    sections = {name: dict(written[name]) for name in written.sections() if name != "pipeline"}
    assert sections == luigi_options.default_options()


# --- the diary


@cache
def _tests() -> frozenset[str]:
    """The names of all test functions."""
    trees = [ast.parse(_read(path)) for path in sorted((ROOT / "tests").rglob("*.py"))]
    functions = [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return frozenset(name for name in functions if name.startswith("test_"))


def _entries() -> dict[str, str]:
    _, *entries = re.split(r"^### ", _read(SURPRISES), flags=re.MULTILINE)
    return {entry.partition("\n")[0]: re.split(r"^## ", entry, flags=re.MULTILINE)[0] for entry in entries}


@pytest.mark.parametrize("title", _entries())
def test_every_surprise_says_what_was_seen_what_is_done_and_which_test_pins_it(title: str) -> None:
    entry = _entries()[title]
    assert re.search(r"^(Seen|Reported)\b", entry, re.MULTILINE)
    assert re.search(r"^Done\b", entry, re.MULTILINE)
    pinned = re.search(r"^Pinned by (.*)", entry, re.MULTILINE | re.DOTALL)
    assert pinned is not None
    named = re.findall(r"`(test_\w+)`", pinned[1])
    assert named
    assert set(named) <= _tests()


@pages
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`(test_\w+)`", _read(page)))
    assert named <= _tests()


def _table(heading: str) -> list[list[str]]:
    """The cells of the table in the entry of that heading, without its head."""
    lines = [line for line in _entries()[heading].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.parametrize(
    ("heading", "words", "meanings"),
    [
        ("Payments were words, in seventeen spellings", codes.PAYMENT_WORDS, codes.PAYMENTS),
        ("Vendors were words, and one of them has no number", codes.VENDOR_WORDS, codes.VENDORS),
        ("Store-and-forward was 0 and 1", codes.STORE_AND_FORWARD_WORDS, codes.STORE_AND_FORWARD),
        ("A shared ride is 1, or N, or nothing", codes.SHARED_RIDE_WORDS, codes.SHARED_RIDE),
    ],
)
def test_the_tables_of_words_are_those_of_the_code(
    heading: str, words: dict[str, int | str], meanings: dict[int | str, str]
) -> None:
    assert _table(heading) == [[f"`{word}`", str(code), meanings[code]] for word, code in words.items()]


def test_the_table_of_the_null_type_is_that_of_the_sample_site() -> None:
    documented = {}
    for dataset, column, months in _table("A column without values has no type"):
        spans = [span.partition("..") for span in months.split(", ")]
        documented[dataset, column] = [
            month for first, _, last in spans for month in month_range(parse_month(first), parse_month(last or first))
        ]
    known: dict[tuple[str, str], list[object]] = {}
    for dataset in ("yellow", "green", "fhv", "fhvhv"):
        for month in published_months(dataset):
            for name, _, kind in parquet_columns(dataset, month):
                if kind == "null":
                    known.setdefault((dataset, name), []).append(month)
    assert documented == known


# --- decisions, changelog, and what belongs into no file


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_every_decision_says_what_was_decided_and_why(page: Path) -> None:
    text = _read(page)
    assert text.startswith("# ")
    for word in ("Decision", "Why"):
        assert re.search(rf"^\*\*{word}\.\*\* \S", text, re.MULTILINE), f"no paragraph begins with **{word}.**"


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+\S*?)\]?(?:\s|$)", _read(CHANGELOG), re.MULTILINE)
    assert versions[0] == __version__
    assert len(set(versions)) == len(versions)


def _files() -> Iterator[Path]:
    """The project's own files; what a tool or a benchmark leaves in hidden folders is none of them."""
    yield from (path for path in ROOT.iterdir() if path.is_file())
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            inner = path.relative_to(ROOT / folder).parts
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in inner):
                yield path


def test_no_file_names_a_path_of_somebody_s_machine() -> None:
    for path in _files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found = re.search(r"(?<![\w.])/(work|root|home)/(?!taxi\b|\.cache/pip)\S*", text)  # These are of the container.
        assert found is None, f"{path.relative_to(ROOT)}: {found[0]}"


# --- luigid


def test_luigid_as_the_pages_start_it_ends_without_a_traceback(tmp_path: Path) -> None:
    line = next(words for words in re.findall(r"^(luigid .*?)(?: &)?$", _read(MANY_MACHINES), re.MULTILINE))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    name, *options = shlex.split(line)
    (tmp_path / "luigi.cfg").write_text(_read(ROOT / "luigi.cfg"))
    output = tmp_path / "output"
    with output.open("w") as file:
        command = [str(Path(sys.executable).parent / name), *options, "--port", port]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=file, text=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        # It listens before it can be stopped, and answers afterwards.
        with suppress(requests.RequestException):
            requests.get(f"http://127.0.0.1:{port}/api/task_list", timeout=10)
            break
        time.sleep(0.05)
    stopped_by(process, process.terminate)
    assert "Traceback" not in output.read_text()
    assert (tmp_path / "luigid.pickle").is_file()


def test_every_documented_luigid_command_has_a_path_for_its_state() -> None:
    texts = [path for path in _files() if path.suffix in (".md", ".cfg", ".py") and "tests" not in path.parts]
    options = [rest for path in texts for rest in re.findall(r"luigid --address 127\.0\.0\.1(.*)", _read(path))]
    assert options
    assert all(rest.startswith(" --state-path ") for rest in options)
