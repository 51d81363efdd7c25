"""One diagnosis from the run's id to its result: what `driftline diagnose` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from driftline.console.common import now, progress_bar
from driftline.console.outputs import write_json
from driftline.console.replay_run import LEDGER, Opened, ReplayRequest, open_replay
from driftline.consumers.models.litellm_proposer import LiteLLMProposer
from driftline.replay.arms import Candidate
from driftline.replay.asking import steady
from driftline.replay.diagnosing import BatchDiagnosis
from driftline.replay.diagnosis_plan import Diagnosing, default_repeats, diagnosis_id
from driftline.replay.diagnosis_result import DiagnosisResult, diagnosis_data
from driftline.replay.failing import decisions_of, failing_batch, moved_in
from driftline.replay.ledger import Ledger
from driftline.replay.plan import require_price, room_in_usd
from driftline.replay.result import Limits
from driftline.replay.run_request import RunRequest, read_request
from driftline.replay.segment import LoggedDecision
from driftline.replay.spending import Spending

FILE = "diagnosis.json"
"""In the folder of the run."""
TOO_SMALL = "too_small"
"""Nothing was asked."""


@dataclass(frozen=True)
class DiagnosisRequest:
    """What is to be diagnosed; what is None is as the run had it."""

    database: Path
    report: Mapping[str, Any]
    limits: Limits
    """But for alpha, delta and the order's seed."""
    alpha: float | None = None
    delta: float | None = None
    repeats: int | None = None
    allow_unpriced: bool = False


def run_diagnosis(request: DiagnosisRequest) -> tuple[DiagnosisResult, Mapping[str, Any]]:
    """Find the failing batch, ask it afresh, write `diagnosis.json` beside the run; the result and its data.

    One that asked nothing does not take the place of one that did.

    Raises:
        UsageError: The run does not say what it was asked, its decisions are gone, or a price is unknown.
        EnvironmentUnreachable: A broker, the registry or the model does not answer.
    """
    folder = request.database.parent
    asked_then = read_request(folder)
    batch = failing_batch(request.database)
    limits = replace(
        request.limits,
        alpha=asked_then.alpha if request.alpha is None else request.alpha,
        delta=asked_then.delta if request.delta is None else request.delta,
        order_seed=asked_then.order_seed,
    )
    opened = open_replay(_replay_of(asked_then, batch.workflows, limits))
    asked = Diagnosing(
        run_id=request.report["run_id"],
        batch=decisions_of(opened.segment, batch),
        subject=opened.subject,
        incumbent=asked_then.incumbent.candidate(incumbent=True),
        candidate=asked_then.candidate.candidate(),
        repeats=default_repeats(len(batch.decision_ids)) if request.repeats is None else request.repeats,
        moved=moved_in(request.database, request.report, batch),
        limits=limits,
    )
    _check(asked, opened, request.allow_unpriced)
    result = _ask_all(asked, opened)
    arms = {name: request.report.get(name) for name in ("app", "baseline", "candidate", "tried")}
    data = {**arms, "alpha": limits.alpha, "delta": limits.delta, **diagnosis_data(result)}
    if result.stopped_because != TOO_SMALL or not (folder / FILE).exists():
        write_json(folder / FILE, data)
    return result, data


def _replay_of(asked: RunRequest, workflows: frozenset[str], limits: Limits) -> ReplayRequest:
    verifier = None if asked.verifier is None else str(asked.verifier)
    selection = asked.selection(workflows)
    return ReplayRequest(asked.app, asked.candidate.candidate(), selection, limits, verifier, asked.segment_file)


def _check(asked: Diagnosing, opened: Opened, allow_unpriced: bool) -> None:
    """Refuse, before anything is paid, a model that does not exist or has no price."""
    models: dict[str, tuple[Candidate, LoggedDecision]] = {}
    for logged in asked.planned:
        for arm in asked.arms.values():
            models.setdefault(arm.model or logged.decision.model_requested, (arm, logged))
    for model, (arm, logged) in models.items():
        LiteLLMProposer().check(arm.request(logged.decision, asked.subject, "plan", asked.limits.order_seed))
        require_price(opened.prices.of(model), opened.prices, asked.limits, allow_unpriced)


def _ask_all(asked: Diagnosing, opened: Opened) -> DiagnosisResult:
    run_id = diagnosis_id(asked.run_id)
    with closing(Ledger(opened.settings.home / LEDGER)) as ledger, ledger.asking(run_id):
        room = partial(room_in_usd, asked.candidate, opened.prices)
        spending = Spending(asked.limits.usd_max, ledger.paid_usd(run_id), room)
        diagnosis = BatchDiagnosis(asked, steady(LiteLLMProposer(), asked.limits), ledger, now, spending)
        calls = len(asked.planned) * len(asked.arms) * asked.repeats
        with progress_bar(f"diagnosing {asked.run_id}", calls) as show:
            return asyncio.run(diagnosis.run(lambda done, planned: show(done)))
