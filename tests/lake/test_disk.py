"""File systems without fsync of folders or without locks, simulated by a preloaded C library under the real command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Folder

#: Refuses the operation that the variable LACKS names: to sync folders, or to lock (flock; and fcntl, as DuckDB does).
_REFUSING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

static int lacks(const char *what) {
    const char *found = getenv("LACKS");
    return found && !strcmp(found, what);
}

int fsync(int file) {
    struct stat state;
    if (lacks("sync") && !fstat(file, &state) && S_ISDIR(state.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(file);
}

static int control(const char *name, int file, int command, void *argument) {
    if (lacks("locks") && (command == F_SETLK || command == F_SETLKW || command == F_GETLK)) {
        errno = ENOLCK;
        return -1;
    }
    return ((int (*)(int, int, void *)) dlsym(RTLD_NEXT, name))(file, command, argument);
}

#define CONTROL(NAME) int NAME(int file, int command, ...) { va_list rest; va_start(rest, command); \
    void *argument = va_arg(rest, void *); va_end(rest); return control(#NAME, file, command, argument); }
CONTROL(fcntl)
CONTROL(fcntl64)
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the library, for LD_PRELOAD."""
    folder = tmp_path_factory.mktemp("refusing")
    (folder / "refusing.c").write_text(_REFUSING)
    command = ["cc", "-shared", "-fPIC", "-o", "refusing.so", "refusing.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "refusing.so")


def test_a_file_system_that_cannot_sync_folders_is_no_error_for_lake_or_warehouse(
    folder: Folder, refusing: str
) -> None:
    folder.environment = {"LD_PRELOAD": refusing, "LACKS": "sync"}
    ended = folder.pipeline("backfill", "green", "2024-01")
    assert ended.returncode == 0, ended.stderr
    ended = folder.pipeline("sql", "SELECT 1 AS one", "--output", "one.csv")
    assert ended.returncode == 0, ended.stderr


_MAKE = """
import sys
from pathlib import Path
from pipeline.errors import WarehouseError
from pipeline.warehouses.duckdb.file import DuckDBFile
try:
    DuckDBFile(Path(sys.argv[1]), "1GB", 1, lock_timeout_s=60).make("green", lambda connection: None)
except WarehouseError as error:
    print(error)
"""


def test_a_database_without_locks_is_an_error_without_waiting(tmp_path: Path, refusing: str) -> None:
    environment = {"LD_PRELOAD": refusing, "LACKS": "locks"}
    said = subprocess.run(
        [sys.executable, "-c", _MAKE, str(tmp_path / "a.duckdb")],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=50,
    ).stdout
    assert "No locks available" in said
    assert "must have locks: mount it with them (NFS: without nolock), or set [pipeline] warehouse to another" in said
    assert "held by" not in said
    assert list(tmp_path.iterdir()) == []
