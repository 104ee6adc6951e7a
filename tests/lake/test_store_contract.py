"""The contract of every store; a new store must pass this suite."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from emulators import GcsEmulator

from pipeline.disk import sync
from pipeline.errors import StoreError, UsageError
from pipeline.lake import Store, open_store

KEY = "trips/green/month=2024-01-01/green_2024-01.parquet"


_numbers = itertools.count()


@pytest.fixture(params=["local", "gcs"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "lake"))
    emulator: GcsEmulator = request.getfixturevalue("gcs")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    bucket = f"lake-{next(_numbers)}"
    emulator.make_bucket(bucket)
    return open_store(f"gs://{bucket}/some/prefix", str(tmp_path / "scratch"))


def publish(store: Store, key: str, content: bytes) -> None:
    with store.publish(key) as draft:
        draft.write_bytes(content)


def content_of(store: Store, key: str) -> bytes:
    with store.entry(key).open_local() as path:
        return path.read_bytes()


def test_a_published_file_is_whole(store: Store) -> None:
    assert not store.exists(KEY)
    publish(store, KEY, b"rows")
    assert store.exists(KEY)
    assert content_of(store, KEY) == b"rows"
    assert store.entry(KEY).bytes == 4


def test_nothing_is_published_before_the_block_ends(store: Store) -> None:
    with store.publish(KEY) as draft:
        draft.write_bytes(b"rows")
        assert not store.exists(KEY)
        assert store.entries("trips/") == {}


def test_publishing_again_replaces(store: Store) -> None:
    publish(store, KEY, b"old")
    publish(store, KEY, b"new")
    assert content_of(store, KEY) == b"new"


def test_a_failed_republish_keeps_the_old_file(store: Store) -> None:
    publish(store, KEY, b"old")
    with pytest.raises(RuntimeError, match="boom"), store.publish(KEY) as draft:
        draft.write_bytes(b"half")
        raise RuntimeError("boom")
    assert content_of(store, KEY) == b"old"
    assert set(store.entries("trips/")) == {KEY}


def test_a_block_that_makes_no_draft_is_an_error_that_names_the_key(store: Store) -> None:
    with pytest.raises(StoreError, match=KEY), store.publish(KEY):
        pass
    assert not store.exists(KEY)


def test_of_two_files_the_inner_one_is_published_first(store: Store) -> None:
    with store.publish("raw/a") as raw:
        raw.write_bytes(b"1")
        with store.publish("raw/a.json") as sidecar:
            sidecar.write_bytes(b"{}")
        assert store.exists("raw/a.json")
        assert not store.exists("raw/a")
    assert store.exists("raw/a")


def test_one_listing_names_every_key_below_a_prefix_and_no_other(store: Store) -> None:
    for key in ("trips/green/a", "trips/green/month=2024-01-01/b", "trips/yellow/c", "raw/green/d"):
        publish(store, key, b"x")
    assert set(store.entries("trips/green/")) == {"trips/green/a", "trips/green/month=2024-01-01/b"}
    assert store.entries("checks/") == {}


def test_the_same_content_has_the_same_fingerprint_and_another_has_another(store: Store) -> None:
    publish(store, "a", b"x" * 200_000)
    first = store.entry("a").fingerprint
    publish(store, "a", b"x" * 200_000)
    assert store.entry("a").fingerprint == first
    publish(store, "a", b"x" * 199_999 + b"y")
    assert store.entry("a").fingerprint != first


def test_a_missing_file_is_a_clear_error(store: Store) -> None:
    with pytest.raises(StoreError, match=KEY):
        store.entry(KEY)


def test_deleting_may_be_repeated(store: Store) -> None:
    publish(store, KEY, b"x")
    store.delete(KEY)
    store.delete(KEY)
    assert not store.exists(KEY)


def test_a_part_survives_its_block_and_its_error(store: Store) -> None:
    with pytest.raises(RuntimeError), store.part("raw/a", wait_s=1) as part:
        part.write_bytes(b"half")
        raise RuntimeError
    with store.part("raw/a", wait_s=1) as part:
        assert part.read_bytes() == b"half"
    store.sweep()
    with store.part("raw/a", wait_s=1) as part:
        assert part.read_bytes() == b"half"


def test_a_part_is_held_by_one_process_at_a_time(store: Store) -> None:
    with store.part("raw/a", wait_s=1), pytest.raises(StoreError, match="raw/a: another process has held"):
        with store.part("raw/a", wait_s=0.2):
            pass
    with store.part("raw/a", wait_s=0.2):
        pass


def test_a_sweep_deletes_a_part_whose_file_is_published(store: Store) -> None:
    with store.part("raw/a", wait_s=1) as part:
        part.write_bytes(b"half")
        part.with_name(part.name + ".json").write_text("{}")
    publish(store, "raw/a", b"whole")
    store.sweep()
    with store.part("raw/a", wait_s=1) as part:
        assert not part.exists()


def test_a_sweep_leaves_living_drafts_alone(store: Store) -> None:
    with store.publish(KEY) as draft:
        draft.write_bytes(b"rows")
        store.sweep()
        assert draft.exists()
    assert store.exists(KEY)


# Tests of the local store only.

KILLED = """
import os, signal, sys
from pipeline.lake import open_store
with open_store(sys.argv[1]).publish("a") as draft:
    draft.write_bytes(b"half")
    print("written", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_local_drafts_of_a_killed_process_are_swept_and_nothing_else_is_on_disk(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    subprocess.run([sys.executable, "-c", KILLED, str(lake)], check=False, capture_output=True)
    assert any(name.endswith("/a") for name in files_below(lake))
    (lake / ".drafts" / "1-killed-before-it-was-locked").mkdir()
    open_store(str(lake)).sweep()
    assert files_below(lake) == [".drafts"]


def test_local_a_draft_of_another_living_process_is_not_swept(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    script = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lake)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        open_store(str(lake)).sweep()
        process.communicate(b"")
    assert process.returncode == 0
    assert (lake / "a").read_bytes() == b"half"


def test_local_after_publishing_nothing_else_is_on_disk(tmp_path: Path) -> None:
    publish(open_store(str(tmp_path)), "raw/a", b"x")
    open_store(str(tmp_path)).sweep()
    assert files_below(tmp_path) == [".drafts", "raw", "raw/a"]


def test_local_many_processes_may_sweep_and_publish_at_once(tmp_path: Path) -> None:
    script = """
import sys
from pipeline.lake import open_store
store = open_store(sys.argv[1])
for number in range(100):
    store.sweep()
    with store.publish(f"{sys.argv[2]}/{number}") as draft:
        draft.write_bytes(b"x")
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(open_store(str(tmp_path)).entries("")) == 300


def test_local_a_folder_that_a_sweep_deletes_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, is_dir = tmp_path / ".drafts" / f"{os.getpid()}-0", Path.is_dir
    looks = []

    def sweep_before(path: Path, **options: Any) -> bool:
        if path == folder and not looks:
            looks.append(path)
            path.rmdir()
        return is_dir(path, **options)

    store = open_store(str(tmp_path))
    folder.mkdir(parents=True)
    monkeypatch.setattr("secrets.token_hex", lambda _: "0")
    monkeypatch.setattr(Path, "is_dir", sweep_before)
    publish(store, "raw/a", b"x")
    assert looks
    assert (tmp_path / "raw" / "a").read_bytes() == b"x"


def test_local_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
sys.dont_write_bytecode = True  # See tests/full_disk.py.
from pipeline.errors import StoreError
from pipeline.lake import open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with open_store(sys.argv[1]).publish("raw/a") as draft:
        draft.write_bytes(b"x" * 5000)
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    refused = f"raw/a: cannot be written to the lake {tmp_path}: File too large; make room, or set [pipeline] lake to "
    assert done.stdout.startswith(refused)
    assert [name for name in files_below(tmp_path) if "/" in name] == []


def test_local_a_lake_without_its_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="raw/a: cannot be written to the lake .*file: Not a directory"):
        publish(open_store(str(tmp_path / "file")), "raw/a", b"x")


@pytest.mark.parametrize("lake", ["", "s3://bucket/prefix", "duckdb:///x"])
def test_a_lake_of_an_unknown_kind_is_refused(lake: str) -> None:
    with pytest.raises(UsageError, match="not a supported kind of lake"):
        open_store(lake)


def test_local_a_file_in_the_place_of_a_folder_is_named_and_moving_it_away_helps(tmp_path: Path) -> None:
    (tmp_path / ".drafts").write_text("")
    store = open_store(str(tmp_path))
    with pytest.raises(StoreError) as caught, store.part("raw/a", wait_s=0):
        pass
    assert "Not a directory" in str(caught.value) or "File exists" in str(caught.value)
    assert (
        f"; move away the file {tmp_path / '.drafts'}, which is where a folder must be, or set [pipeline] lake"
        in str(caught.value)
    )
    (tmp_path / ".drafts").unlink()
    with store.part("raw/a", wait_s=0) as path:
        assert path.parent.is_dir()


def test_local_a_folder_of_the_lake_on_another_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if Path(other).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("this machine has one file system")
        (tmp_path / "raw").symlink_to(other)
        with pytest.raises(
            StoreError, match=r"raw/a: .*link.*; all of it must be on one file system: \[pipeline\] lake"
        ):
            publish(open_store(str(tmp_path)), "raw/a", b"x")
        (tmp_path / "raw").unlink()
        publish(open_store(str(tmp_path)), "raw/a", b"x")
    assert [name for name in files_below(tmp_path) if "/" in name] == ["raw/a"]


def test_local_a_symbolic_link_counts_alike_in_listing_and_asking(tmp_path: Path) -> None:
    store, elsewhere = open_store(str(tmp_path / "lake")), tmp_path / "elsewhere"
    for key in ("trips/month=1/file", "trips/month=2/whole", "trips/month=3/gone"):
        publish(store, key, b"rows")
    months = tmp_path / "lake" / "trips"
    (months / "month=1").rename(elsewhere)
    (months / "month=1").symlink_to(elsewhere)
    (months / "month=2" / "link").symlink_to(months / "month=2" / "whole")
    (months / "month=3" / "gone").unlink()
    (months / "month=3" / "gone").symlink_to(tmp_path / "nothing")
    (months / "month=3" / "back").symlink_to(months)
    listed = {"trips/month=1/file", "trips/month=2/whole", "trips/month=2/link"}
    assert set(store.entries("trips/")) == listed
    assert {key for key in (*listed, "trips/month=3/gone", "trips/month=3/back") if store.exists(key)} == listed
    assert {entry.bytes for entry in store.entries("trips/").values()} == {4}


def test_a_folder_that_cannot_be_synced_is_no_error_and_a_disk_that_fails_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(OSError, match="Invalid argument"):  # /proc is such a folder.
        os.fsync(os.open("/proc/self", os.O_RDONLY))
    sync(Path("/proc/self"))

    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        sync(Path("/proc/self"))


def test_local_a_file_system_without_locks_is_an_error_that_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    store = open_store(str(tmp_path))
    with pytest.raises(StoreError, match=r"must have locks: .*, or set \[pipeline\] lake to another place"):
        publish(store, "raw/a", b"x")
    with pytest.raises(StoreError, match=r"must have locks"), store.part("raw/a", wait_s=0):
        pass
    assert [name for name in files_below(tmp_path) if not name.endswith(".lock")] == [".drafts"]


_AS_USER = """
import os, sys
import pipeline.lake.local
from pipeline.errors import StoreError
lake, user, umask = sys.argv[1], int(sys.argv[2]), int(sys.argv[3], 8)
os.setgroups([]), os.setgid(4711), os.setuid(user), os.umask(umask)
store = pipeline.lake.local.LocalStore(lake := pipeline.lake.local.Path(lake))
try:
    store.sweep()
    with store.part("raw/b", wait_s=0) as part:
        part.write_bytes((part.read_bytes() if part.exists() else b"") + b"x")
    with store.publish("raw/a") as draft:
        draft.write_bytes(b"x")
    if len(sys.argv) > 4:
        folder = store._drafts.own_folder()
        folder.__enter__()
        os._exit(0)
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_local_two_users_share_a_lake_as_documented_or_get_the_remedy() -> None:
    def run(lake: Path, user: int, umask: str, *more: str) -> str:
        command = [sys.executable, "-c", _AS_USER, str(lake), str(user), umask, *more]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        lakes = [Path(folder) / name for name in ("wrong", "right")]
        for lake in lakes:
            lake.mkdir()
            os.chown(lake, 0, 4711)
            lake.chmod(0o2775)
        wrong, right = lakes
        assert run(wrong, 4001, "022") == ""
        message = run(wrong, 4002, "022")
        assert "Permission denied; give the user 4002 the right to write there, or set [pipeline] lake" in message
        assert '"Several users"' in message
        # The remedy in the documentation works.
        subprocess.run(["chmod", "-R", "g+rwX", str(wrong)], check=True)
        assert run(wrong, 4002, "002") == ""
        assert run(right, 4001, "002", "and leave a draft") == ""
        assert any(name.startswith(".drafts/4") or "-" in name for name in files_below(right))
        assert run(right, 4002, "002") == ""
        assert files_below(right) == [".drafts", ".drafts/raw~b.part", ".drafts/raw~b.part.lock", "raw", "raw/a"]


def test_waiting_for_a_part_ends_as_soon_as_it_is_free(tmp_path: Path) -> None:
    script = """
import sys, time
from pipeline.lake import open_store
with open_store(sys.argv[1]).part("raw/a", wait_s=1) as part:
    print("held", flush=True)
    time.sleep(0.5)
"""
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        with open_store(str(tmp_path)).part("raw/a", wait_s=30):
            assert time.monotonic() - began < 20


_USE_WITHOUT_RIGHTS = """
import os, sys
from pathlib import Path
from pipeline.errors import StoreError
from pipeline.lake.local import LocalStore

store = LocalStore(Path(sys.argv[1]))
if os.geteuid() == 0:
    os.setuid(65534)
for call in (lambda: store.exists("raw/a"), lambda: store.entries("raw/"), lambda: store.delete("raw/a"), store.sweep):
    try:
        print("answered", call())
    except StoreError as error:
        print(error)
"""


def test_local_an_unreadable_lake_is_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    publish(open_store(str(lake)), KEY, b"x")
    lake.chmod(0)
    try:
        command = [sys.executable, "-c", _USE_WITHOUT_RIGHTS, str(lake)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    finally:
        lake.chmod(0o700)
    assert len(said) == 4
    assert all(f"the lake {lake}: Permission denied; give the user " in line for line in said), said
