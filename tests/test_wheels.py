"""All dependencies exist as wheels for arm64, so that no compiler is needed there."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PLATFORMS = {
    "linux": ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
    "darwin": ("macosx_14_0_arm64", "macosx_12_0_arm64", "macosx_11_0_arm64", "macosx_10_9_universal2"),
}
#: How pip says that it did not come as far as the index.
UNREACHABLE = re.compile(
    r"NewConnectionError|Connection refused|Failed to resolve|timed? ?out|ProxyError|SSLError", re.I
)


def needed() -> list[str]:
    """What setup.cfg asks for without the tools of development and documentation."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    texts = [setup["options"]["install_requires"], *(extras[name] for name in extras if name not in ("dev", "docs"))]
    return [line for text in texts for line in text.splitlines()]


def pins() -> list[str]:
    """The lines of constraints.txt."""
    return (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def those_for(python: str, system: str, lines: list[str]) -> list[str]:
    """The lines that count for this Python, without their markers; pip itself would ask the one that runs it."""
    there = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    counting = [one for one in found if one.marker is None or one.marker.evaluate(there)]
    for one in counting:
        one.marker = None
    return [str(one) for one in counting]


@pytest.mark.skipif(find_spec("pip") is None, reason="there is no pip that could resolve anything")
@pytest.mark.parametrize(("python", "system"), [("3.10", "linux"), ("3.13", "linux"), ("3.13", "darwin")])
def test_all_that_is_needed_resolves_for_arm64_from_wheels_alone(python: str, system: str, tmp_path: Path) -> None:
    constraints, report = tmp_path / "constraints.txt", tmp_path / "report.json"
    constraints.write_text("\n".join(those_for(python, system, pins())), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--retries", "1"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    command += [word for platform in PLATFORMS[system] for word in ("--platform", platform)]
    # With what the wheels say of Python, pip compares the one that runs it, too; their names say the same.
    command += ["--ignore-requires-python", "--target", str(tmp_path / "target"), "--report", str(report)]
    command += ["--disable-pip-version-check", "--constraint", str(constraints), *those_for(python, system, needed())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    chosen = json.loads(report.read_text(encoding="utf-8"))["install"]
    names = {item["metadata"]["name"].lower() for item in chosen}
    assert {"pyarrow", "duckdb", "psycopg-binary"} <= names
    assert all(item["download_info"]["url"].endswith(".whl") for item in chosen)
