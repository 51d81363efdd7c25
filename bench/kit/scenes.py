"""What a detector is shown: events that an incumbent and a candidate answered, by recording, simulator or draw."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftline.consumers import SpecJudge
from driftline.consumers.artifacts import Artifact
from driftline.consumers.models import RecordedAnswers
from driftline.detectors import ArmOutcome
from driftline.examples.renewals.app import app as renewals
from driftline.producers.renewals import synthetic_renewals
from driftline.replay import AppSubject, Candidate, RecordedSubject, Segment
from driftline.replay.arms import Asking, judge_answer, judge_logged
from driftline.replay.recordings import RecordedRun, recorded_segments
from driftline.replay.testing import OwnModels, decided, segment_of
from driftline.schemas import Contracts

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT.parent / "shared" / "data"
SPECS = ROOT / "examples" / "driftline" / "examples" / "recordings"
FLOOR_RUNS = 4
"""Cached runs of the incumbent beside which the candidate is held."""
SIM_CUSTOMERS, SIM_SEED = 1000, 21
NOISE = 0.03
"""Share of simulated answers that stray by themselves."""
STABILITY = ("logical-deduction", "navigate", "ruin-names")
GPT4O, GPT35 = "openai/gpt-4o", "openai/gpt-35"

Ints = NDArray[np.int64]
Answers = list[list[ArmOutcome]]
"""By event and run."""


@dataclass(frozen=True)
class Draws:
    """Random draws of a scene in the order of evidence; an answer is an index into `outcomes`.

    Attributes:
        strata: Names of the strata.
        outcomes: All answers that there are.
        stratum: Which stratum; shape (draws, events).
        samples: The candidate's answer, the log's, then those of further incumbent runs; (draws, events, samples).
        second: Another answer of the candidate; (draws, events), None where it was asked once.
    """

    strata: Sequence[str]
    outcomes: Sequence[ArmOutcome]
    stratum: Ints
    samples: Ints
    second: Ints | None

    def first(self, draws: int) -> Draws:
        """The first so many draws."""
        second = None if self.second is None else self.second[:draws]
        return replace(self, stratum=self.stratum[:draws], samples=self.samples[:draws], second=second)

    @property
    def floor(self) -> bool:
        """Whether the incumbent was asked often enough to give a noise floor."""
        return bool(self.samples.shape[2] > FLOOR_RUNS)

    def level(self, name: str) -> Ints:
        """By outcome, a code that is equal where two outcomes are equal at a level."""
        return np.unique([one.hashes.get(name, "") for one in self.outcomes], return_inverse=True)[1]

    def accepted(self) -> NDArray[np.float64]:
        """Verdicts; shape as `samples`."""
        return np.array([one.accepted for one in self.outcomes])[self.samples]


@dataclass(frozen=True)
class Scene:
    """Events under two arms.

    Attributes:
        name: What changed.
        stratum: Of each event.
        incumbent: What its runs answered.
        candidate: What its runs answered; None where nothing changed, and the candidate is one of the incumbent.
        share: Of the events that the candidate answers; the others are left to the incumbent.
        whole_runs: A run keeps its part in a draw; else parts are dealt anew for each event, so that runs are
            exchangeable even where one of them differs.
        usd_a_call: What the candidate costs, where it is known.
    """

    name: str
    stratum: Sequence[str]
    incumbent: Answers
    candidate: Answers | None = None
    share: float = 1.0
    whole_runs: bool = False
    usd_a_call: float | None = None

    @property
    def events(self) -> int:
        return len(self.stratum)

    def draw(self, draws: int, rng: np.random.Generator) -> Draws:
        """Deal parts to runs and put events into random order."""
        outcomes: list[ArmOutcome] = []
        incumbent = self._coded(self.incumbent, outcomes)
        order = rng.permuted(np.tile(np.arange(self.events), (draws, 1)), axis=1)
        samples = self._dealt(incumbent[order], rng)
        second = samples[:, :, 3] if samples.shape[2] > FLOOR_RUNS else None
        if self.candidate is not None:
            runs = self._dealt(self._coded(self.candidate, outcomes)[order], rng)
            astray = rng.random((draws, self.events)) < self.share
            first = np.where(astray, runs[:, :, 0], samples[:, :, 0])
            if second is not None:
                second = np.where(astray, runs[:, :, 1], second) if runs.shape[2] > 1 else None
            samples = np.concatenate([first[:, :, None], samples[:, :, incumbent.shape[1] > 1 :]], axis=2)
        strata, codes = np.unique(np.array(self.stratum), return_inverse=True)
        return Draws(strata.tolist(), outcomes, codes[order], samples, second)

    def _dealt(self, runs: Ints, rng: np.random.Generator) -> Ints:
        if not self.whole_runs:
            return rng.permuted(runs, axis=2)
        places = rng.permuted(np.tile(np.arange(runs.shape[2]), (len(runs), 1)), axis=1)
        return np.take_along_axis(runs, places[:, None, :], axis=2)

    @staticmethod
    def _coded(answers: Answers, outcomes: list[ArmOutcome]) -> Ints:
        first, runs = len(outcomes), len(answers[0])
        outcomes.extend(one for event in answers for one in event)
        return np.arange(first, len(outcomes)).reshape(-1, runs)


def nothing_changed() -> Iterator[Scene]:
    """Scenes in which an alarm is false."""
    if RECORDINGS.is_dir():
        stratum, runs = _same_model()
        yield Scene("gpt-4o, run labels dealt event by event", stratum, runs)
        yield Scene("gpt-4o, whole runs (one really differs)", stratum, runs, whole_runs=True)
    yield simulator("renewals")


def something_changed() -> Iterator[Scene]:
    """Scenes in which there is something to be found."""
    if RECORDINGS.is_dir():
        for name, before, after in (
            ("llmdrift-happy", "gpt-4-0314", "gpt-4-0613"),
            ("llmdrift-happy", "gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613"),
            ("llmdrift-leetcode", "gpt-4-0314", "gpt-4-0613"),
        ):
            yield _upgrade(name, f"openai/{before}", f"openai/{after}")
        for share in (0.1, 0.2, 0.4):
            yield _mixture(share)
    for version in ("inflated", "fenced", "noisier"):
        yield simulator(f"renewals-{version}")
    yield drawn("2 strata of 300, -12 and +12 points", [(300, -0.12), (300, 0.12)])
    yield drawn("10 strata of 50, one -40 points", [(50, -0.4)] + [(50, 0.0)] * 9)
    yield drawn("50 strata of 50, -15 and +15 points", [(50, 0.15 * (-1) ** number) for number in range(50)])


def _spec(name: str) -> SpecJudge:
    spec = {"llmdrift-happy": "happy-number", "llmdrift-leetcode": "leetcode"}.get(name, "stability")
    return SpecJudge.from_file(SPECS / f"{spec}.toml")


def _segments(name: str) -> dict[RecordedRun, Segment]:
    path = RECORDINGS / f"{name}.jsonl.gz"
    replicates = RecordedAnswers.load(path).replicates
    runs = [RecordedRun(model, number) for model, numbers in replicates.items() for number in numbers]
    return dict(recorded_segments(path, runs, _spec(name)))


def _runs(name: str, model: str) -> dict[str, list[ArmOutcome]]:
    """By event that all runs of a model answered."""
    subject = RecordedSubject(name, _spec(name), Contracts.load())
    runs = [
        {logged.decision.input.event_id: judge_logged(logged, subject).outcome() for logged in segment.decisions}
        for run, segment in _segments(name).items()
        if run.model == model
    ]
    return {event: [run[event] for run in runs] for event in sorted(set.intersection(*map(set, runs)))}


def _upgrade(name: str, before: str, after: str) -> Scene:
    incumbent, candidate = _runs(name, before), _runs(name, after)
    both = [event for event in incumbent if event in candidate]
    prices = [
        logged.decision.attempts[0].cost_usd
        for run, segment in _segments(name).items()
        if run.model == after
        for logged in segment.decisions
    ]
    known = [price for price in prices if price is not None]
    return Scene(
        f"{before.removeprefix('openai/')} to {after[-4:]}, {name.removeprefix('llmdrift-')}",
        ["recorded"] * len(both),
        [incumbent[event] for event in both],
        [candidate[event] for event in both],
        usd_a_call=sum(known) / len(known) if known else None,
    )


def _same_model() -> tuple[list[str], Answers]:
    stratum, answers = [], []
    for name in STABILITY:
        runs = list(_runs(f"stability-{name}", GPT4O).values())
        stratum += [name] * len(runs)
        answers += runs
    return stratum, answers


def _mixture(share: float) -> Scene:
    stratum, incumbent, candidate = [], [], []
    for name in STABILITY[:2]:
        before, after = _runs(f"stability-{name}", GPT4O), _runs(f"stability-{name}", GPT35)
        both = [event for event in before if event in after]
        stratum += [name] * len(both)
        incumbent += [before[event] for event in both]
        candidate += [after[event][:6] for event in both]
    return Scene(f"gpt-3.5 in {share:.0%} of gpt-4o's events", stratum, incumbent, candidate, share)


def simulator(version: str) -> Scene:
    """A version of the simulated renewal analyst against the incumbent; `renewals` is the incumbent itself."""
    events = synthetic_renewals(SIM_CUSTOMERS, SIM_SEED)
    history = segment_of(decided(renewals, events, OwnModels(), SIM_SEED))
    prompts = {
        b.prompt.hash: Artifact(b.prompt.hash, "prompt", b.prompt.name, b.prompt.text) for b in renewals.boundaries
    }
    subject = AppSubject(renewals, prompts)
    incumbent = asyncio.run(_asked(history, subject, Candidate(incumbent=True), "incumbent", FLOOR_RUNS + 2))
    stratum = [logged.stratum for logged in history.decisions]
    if version == "renewals":
        return Scene(f"sim/{version} against itself", stratum, incumbent)
    candidate = asyncio.run(_asked(history, subject, Candidate(f"sim/{version}"), "candidate", 2))
    return Scene(f"sim/{version}", stratum, incumbent, candidate)


async def _asked(history: Segment, subject: AppSubject, candidate: Candidate, arm: str, runs: int) -> Answers:
    models, found = OwnModels(), []
    for logged in history.decisions:
        answers = []
        for number in range(runs):
            asking = Asking(arm, replicate=number)
            request = candidate.request(logged.decision, subject, "bench", SIM_SEED, asking)
            answer = await models.propose(request)
            answers.append(judge_answer(answer, logged.decision, subject).outcome())
        found.append(answers)
    return found


def drawn(name: str, strata: Sequence[tuple[int, float]]) -> Scene:
    """Verdicts alone: events and change of the acceptance rate by stratum, over answers that stray by themselves."""
    rng, stratum = np.random.default_rng(31), []
    arms: tuple[Answers, Answers] = ([], [])
    for number, (events, change) in enumerate(strata):
        usual = rng.random(events) < 0.5
        moved = (rng.random(events) < 2 * abs(change)) & (usual == (change < 0))
        stratum += [f"stratum-{number}"] * events
        for arm, verdicts, runs in zip(arms, (usual, usual ^ moved), (FLOOR_RUNS + 2, 2), strict=True):
            strays = rng.random((events, runs)) < NOISE
            arm.extend([[_VERDICTS[int(one)] for one in event] for event in (verdicts[:, None] ^ strays)])
    return Scene(name, stratum, *arms)


_VERDICTS = [
    ArmOutcome(float(verdict), {f"answer={verdict}": 1.0}, {"bytes": str(verdict), "action": str(verdict)})
    for verdict in range(2)
]
