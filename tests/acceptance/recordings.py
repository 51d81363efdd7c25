"""Recordings of real models as arms: what today's verifiers make of every answer, by run and event."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from driftline.consumers import SpecJudge
from driftline.consumers.models import RecordedAnswers
from driftline.detectors import ArmOutcome, Observation
from driftline.replay import RecordedSubject
from driftline.replay.arms import judge_logged
from driftline.replay.recordings import RecordedRun, recorded_segments
from driftline.schemas import Contracts

SPECS = Path(__file__).parents[2] / "examples" / "driftline" / "examples" / "recordings"
SPEC_OF = {"llmdrift-happy": "happy-number", "llmdrift-leetcode": "leetcode"}
"""By recording; the others are judged by `stability`."""
GPT4, GPT35, GPT4O = "openai/gpt-4", "openai/gpt-3.5-turbo", "openai/gpt-4o"
STABILITY = ("logical-deduction", "navigate", "ruin-names")
EVERY_SPEC = r"""
[streams."happy-number"]
extract = ['\\boxed\{([^}]*)\}']
accept = "equals-reference"
[streams."leetcode-easy"]
accept = "reference-flag"
[streams."logical_deduction"]
extract = ["json:/Answer", '\(([A-Za-z])\)']
normalise = ["upper", "alphanumeric"]
accept = "equals-reference"
[streams."ruin_names"]
extract = ["json:/Answer", '\(([A-Za-z])\)']
normalise = ["upper", "alphanumeric"]
accept = "equals-reference"
[streams."navigate"]
extract = ["json:/Answer", '(?i)\b(yes|no)\b']
normalise = ["upper", "alphanumeric"]
accept = "equals-reference"
"""
"""All streams of the recordings in one file."""

Outcomes = Mapping[str, ArmOutcome]
"""By event id."""
Arms = Mapping[tuple[str, int], Outcomes]
"""By model and replicate."""


def recording(folder: Path, name: str) -> Path:
    """The file of a recording; skips the test where it is not there."""
    path = folder / f"{name}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the recording {name} is not in {folder}")
    return path


@cache
def read_arms(path: Path) -> Arms:
    """All runs of a recording, each answer judged by the spec that driftline ships for it."""
    spec = SpecJudge.from_file(SPECS / f"{SPEC_OF.get(path.name.removesuffix('.jsonl.gz'), 'stability')}.toml")
    subject = RecordedSubject(path.name, spec, Contracts.load())
    replicates = RecordedAnswers.load(path).replicates
    runs = [RecordedRun(model, number) for model, numbers in replicates.items() for number in numbers]
    return {
        (run.model, run.replicate): {
            logged.decision.input.event_id: judge_logged(logged, subject).outcome() for logged in segment.decisions
        }
        for run, segment in recorded_segments(path, runs, spec).items()
    }


def paired(before: Outcomes, after: Outcomes, stratum: str = "set") -> list[Observation]:
    """Two arms joined by event."""
    return [Observation(stratum, before[event], after[event]) for event in sorted(before.keys() & after.keys())]
