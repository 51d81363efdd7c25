"""What a full disk, a lock of another process or another writer does to a run: one line, and nothing paid is lost."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from driftline.consumers.proposing import Answer, ProposalRequest
from driftline.replay import ForcedResult, Ledger, Limits, Segment, query, report_data, write_store
from driftline.schemas import BadInput

Replay = Callable[..., ForcedResult]
SMALL_BYTES = 400_000
LARGE_BYTES = 64_000_000
HOLDS = """
import duckdb, sys
db = duckdb.connect(sys.argv[1])
print("holds", flush=True)
sys.stdin.read()
"""


@dataclass
class Disk:
    """A folder on a disk that is too small, until room is made."""

    folder: Path
    make_room: Callable[[], object]


@pytest.fixture(params=["a disk that is full", "a limit of a file's length"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Room for some hundred kilobytes: first as the kernel knows it, then for who may not mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "a disk that is full":
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a disk can be mounted by root alone")
        grow = ["mount", "-o", f"remount,size={LARGE_BYTES}", str(folder)]
        try:
            yield Disk(folder, lambda: subprocess.run(grow, check=True))
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_BYTES // 4, before[1]))
        try:
            yield Disk(folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Wordy:
    """Answers at length; counts."""

    def __init__(self) -> None:
        self.calls = 0

    async def propose(self, request: ProposalRequest) -> Answer:
        self.calls += 1
        return Answer(f"yes {request.key.decision_id} " * 400, cost_usd=0.01)


def store(folder: Path, result: ForcedResult) -> Path:
    return write_store(folder, result, report_data("quiz", "acme/last", "acme/next", result, Limits()))


def test_a_ledger_without_room_ends_the_run_with_one_line_and_the_next_run_pays_the_rest_alone(
    small: Disk, replay: Replay, questions: Callable[..., Segment]
) -> None:
    ledger, first, second = Ledger(small.folder / "ledger.sqlite"), Wordy(), Wordy()
    with pytest.raises(BadInput, match=r"ledger\.sqlite: (database or disk is full|disk I/O error)") as caught:
        replay(questions(100), first, ledger=ledger, read_on=True, concurrency=1)
    assert ("\n" not in str(caught.value), caught.value.exit_code) == (True, 2)
    ledger.close()
    small.make_room()
    again = Ledger(small.folder / "ledger.sqlite")
    result = replay(questions(100), second, ledger=again, read_on=True, concurrency=1)
    again.close()
    assert 0 < result.from_ledger == first.calls - 1, "all but the one that found no room"
    assert second.calls == 100 - result.from_ledger


@pytest.fixture
def hundred(replay: Replay, questions: Callable[..., Segment]) -> ForcedResult:
    """A run, made while there was room."""
    return replay(questions(100), Wordy(), read_on=True)


def test_a_store_without_room_is_one_line_leaves_nothing_half_and_is_written_when_there_is_room(
    hundred: ForcedResult, small: Disk
) -> None:
    with pytest.raises(BadInput, match=r"(No space left on device|File too large); make room") as caught:
        store(small.folder / "run", hundred)
    assert ("\n" not in str(caught.value), caught.value.exit_code) == (True, 2)
    assert list((small.folder / "run").iterdir()) == []
    small.make_room()
    assert query(store(small.folder / "run", hundred), "SELECT count(*) FROM pairs")[1] == [(100,)]


@contextmanager
def held(database: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the database open for writing."""
    command = [sys.executable, "-c", HOLDS, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds\n"
        yield holder
        holder.communicate()


def test_a_database_that_another_process_writes_to_names_it_and_says_where_else_to_look(
    tmp_path: Path, replay: Replay, questions: Callable[..., Segment]
) -> None:
    database = store(tmp_path / "run", replay(questions(5), Wordy()))
    with (
        held(database) as holder,
        pytest.raises(BadInput, match=rf"PID {holder.pid}.*; end the process .*Parquet") as caught,
    ):
        query(database, "FROM pairs")
    assert "\n" not in str(caught.value)
    assert query(database, "SELECT count(*) FROM pairs")[1] == [(5,)]


def test_a_run_is_written_though_another_process_has_the_earlier_one_open(
    tmp_path: Path, replay: Replay, questions: Callable[..., Segment]
) -> None:
    result = replay(questions(5), Wordy())
    database = store(tmp_path / "run", result)
    with held(database):
        store(tmp_path / "run", result)
        assert query(database, "SELECT count(*) FROM pairs")[1] == [(5,)]


def test_a_ledger_that_another_writer_keeps_locked_is_one_line_after_the_busy_timeout(
    tmp_path: Path, replay: Replay, questions: Callable[..., Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftline.replay.ledger.BUSY_TIMEOUT_S", 0.0)
    ledger, wordy = Ledger(tmp_path / "ledger.sqlite"), Wordy()
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BadInput, match=r"ledger\.sqlite: database is locked; make room") as caught:
        replay(questions(5), wordy, ledger=ledger, concurrency=1)
    assert ("\n" not in str(caught.value), wordy.calls) == (True, 1)
    other.execute("ROLLBACK")
    other.close()
    assert replay(questions(5), wordy, ledger=ledger, read_on=True).from_ledger == 0
    ledger.close()
