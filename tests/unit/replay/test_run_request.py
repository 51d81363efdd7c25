"""What a run was asked, kept beside its database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftline.consumers.prompt import Prompt
from driftline.replay import Candidate, Limits, Selection
from driftline.replay.arms import Incumbent
from driftline.replay.run_request import REQUEST, read_request, write_request
from driftline.schemas import BadInput, UsageError

PROMPT = Prompt("judge {{ context }}\n---user---\n{{ question }}", "v2.md")


@dataclass(frozen=True)
class Asked:
    """A request, as the command line makes one."""

    app: str = "renewals"
    candidate: Candidate = field(default_factory=lambda: Candidate("acme/next", PROMPT, {"temperature": 0.5}))
    selection: Selection = field(default_factory=Selection)
    limits: Limits = field(default_factory=lambda: Limits(alpha=0.01, delta=0.1, order_seed=7))
    verifier: str | None = None
    segment_file: Path | None = None
    incumbent: Incumbent | None = None


def test_arms_and_limits_come_back_as_they_were(tmp_path: Path) -> None:
    write_request(tmp_path, Asked(incumbent=Incumbent(Candidate("acme/last", incumbent=True), 3)))
    kept = read_request(tmp_path)
    tried, incumbent = kept.candidate.candidate(), kept.incumbent.candidate(incumbent=True)
    assert (tried.model, tried.parameters, tried.prompt) == ("acme/next", {"temperature": 0.5}, PROMPT)
    assert (incumbent.model, incumbent.prompt) == ("acme/last", None)
    assert (kept.app, kept.alpha, kept.delta, kept.order_seed) == ("renewals", 0.01, 0.1, 7)


def test_without_an_incumbent_it_is_what_the_log_says(tmp_path: Path) -> None:
    write_request(tmp_path, Asked())
    assert read_request(tmp_path).incumbent.candidate(incumbent=True) == Candidate(incumbent=True)


def test_the_selection_is_narrowed_to_workflows_and_keeps_its_range(tmp_path: Path) -> None:
    start = datetime(2026, 9, 1, tzinfo=UTC)
    write_request(tmp_path, Asked(selection=Selection(start, offsets={0: (3, 9)}, sample=5)))
    assert read_request(tmp_path).selection(frozenset({"w1"})) == Selection(
        start, offsets={0: (3, 9)}, keys=frozenset({"w1"})
    )


def test_files_are_found_again_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_request(tmp_path, Asked(segment_file=Path("segment.parquet"), verifier="SPEC.toml"))
    kept = read_request(tmp_path)
    assert (kept.segment_file, kept.verifier) == (tmp_path / "segment.parquet", tmp_path / "SPEC.toml")


def test_a_run_that_kept_no_request_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not say what it was asked.*run the same `driftline replay` again"):
        read_request(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"app": "renewals"}', '{"form": 2, "app": "a", "candidate": {}}'])
def test_what_is_no_request_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / REQUEST).write_text(text)
    with pytest.raises(BadInput, match=REQUEST):
        read_request(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="make room or free the folder"):
        write_request(tmp_path / "none", Asked())
