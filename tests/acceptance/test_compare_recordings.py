"""`driftline compare` over what real models answered, from the command line to the JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.recordings import EVERY_SPEC, GPT4, GPT4O, GPT35, STABILITY

pytestmark = pytest.mark.acceptance

DRIFTLINE = Path(sys.executable).with_name("driftline")
Compare = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Exit code and JSON of one comparison."""
    (tmp_path / "SPEC.toml").write_text(EVERY_SPEC)
    out = tmp_path / "out.json"

    def run(file: Path, baseline: str, candidate: str, *options: str) -> tuple[int, dict[str, Any]]:
        arms = ["--baseline", baseline, "--candidate", candidate, "--verifier", str(tmp_path / "SPEC.toml")]
        command = [str(DRIFTLINE), "compare", str(file), *arms, "--json", str(out), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode in {0, 1, 4}, done.stderr
        return done.returncode, json.loads(out.read_text())

    return run


def recording(recordings: Path, name: str) -> Path:
    path = recordings / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the recording {name} is not in {recordings}")
    return path


@pytest.mark.parametrize(
    ("name", "baseline", "candidate", "change"),
    [
        ("llmdrift-happy", f"{GPT4}-0314", f"{GPT4}-0613", 0.352 - 0.836),
        ("llmdrift-happy", f"{GPT35}-0301", f"{GPT35}-0613", 0.482 - 0.306),
        ("llmdrift-leetcode", f"{GPT4}-0314", f"{GPT4}-0613", 0.10 - 0.52),
    ],
)
def test_a_real_upgrade_diverges_by_what_was_recorded_and_long_before_the_end(
    name: str, baseline: str, candidate: str, change: float, recordings: Path, compare: Compare
) -> None:
    code, data = compare(recording(recordings, name), baseline, candidate)
    verdict = data["levels"]["verdict"]
    assert (code, data["verdict"], data["stopped_because"]) == (1, "diverged", "alarm")
    assert verdict["change"] == pytest.approx(change)
    assert verdict["interval"][0] < change < verdict["interval"][1]
    assert data["paid_calls"] < data["events"] / 2


@pytest.fixture
def stability(recordings: Path, tmp_path: Path) -> Path:
    """The three recordings of gpt-4o's five runs in one file: three strata."""
    path = tmp_path / "stability.jsonl.gz"
    path.write_bytes(b"".join(recording(recordings, f"stability-{name}").read_bytes() for name in STABILITY))
    return path


def test_one_model_against_itself_is_not_diverged_and_its_noise_is_its_floor(
    stability: Path, compare: Compare
) -> None:
    code, data = compare(stability, f"{GPT4O}@0", f"{GPT4O}@1", "--floor", f"{GPT4O}@2,3,4")
    assert (code, data["events"]) == (0 if data["verdict"] == "equivalent" else 4, 750)
    assert {stratum["stream"] for stratum in data["strata"]} == {"logical_deduction", "navigate", "ruin_names"}
    for level in ("bytes", "canonical", "action", "verdict"):
        floor = data["noise_floor"]["levels"][level]
        assert floor["interval"][0] < data["levels"][level]["mismatch"] < floor["interval"][1] + 0.05


@pytest.mark.parametrize(("candidate", "incumbent"), [(1, 2), (3, 1)])
def test_three_runs_of_one_model_have_no_cause(
    candidate: int, incumbent: int, stability: Path, compare: Compare
) -> None:
    _, data = compare(stability, f"{GPT4O}@0", f"{GPT4O}@{candidate}", "--incumbent", f"{GPT4O}@{incumbent}")
    assert data["verdict"] != "diverged"
    assert data["attribution"]["cause"] in {"none", "unknown"}
    assert data["noise_floor"]["source"] == "incumbent"


def test_another_model_is_the_cause_and_every_level_has_its_evidence(recordings: Path, compare: Compare) -> None:
    navigate = recording(recordings, "stability-navigate")
    code, data = compare(navigate, f"{GPT4O}@0", "openai/gpt-35", "--incumbent", f"{GPT4O}@1")
    contrasts = data["attribution"]["contrasts"]
    assert (code, data["attribution"]["cause"]) == (1, "model")
    assert (contrasts["environment"]["verdict"] != "diverged", contrasts["candidate"]["verdict"]) == (
        True,
        "diverged",
    )
    assert all(data["levels"][level]["e_value"] > 20 for level in ("bytes", "canonical"))
