"""All dependencies exist as wheels for arm64, so that no compiler is needed there."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

import pytest
from conftest import BIN, ROOT


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def needed() -> str:
    """What setup.cfg asks for without the tools of development and documentation."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    wanted = [extras[name] for name in extras if name not in ("dev", "docs")]
    return "\n".join([setup["options"]["install_requires"], *wanted])


@pytest.mark.parametrize(
    ("python", "platform"),
    [("3.10", "aarch64-manylinux_2_28"), ("3.13", "aarch64-manylinux_2_28"), ("3.13", "aarch64-apple-darwin")],
)
def test_all_that_is_needed_resolves_for_arm64_from_wheels_alone(python: str, platform: str, cache: Path) -> None:
    command = [str(BIN / "uv"), "pip", "compile", "--quiet", "--only-binary", ":all:", "--cache-dir", str(cache)]
    command += ["--python-version", python, "--python-platform", platform, "--constraint", "constraints.txt", "-"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=needed(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if "Failed to fetch" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    names = {line.split("==")[0] for line in done.stdout.splitlines() if "==" in line}
    assert {"pyarrow", "duckdb", "psycopg-binary"} <= names
