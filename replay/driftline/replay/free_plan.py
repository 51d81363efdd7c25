"""What a run in mode `free` will need, before anything is spent: if every workflow goes as it went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from driftline.consumers.proposing import ProposalRequest
from driftline.replay.arms import ArmCall, Candidate, Incumbent, calls_of
from driftline.replay.free import planned_workflows
from driftline.replay.ledger import Ledger
from driftline.replay.plan import NOISE_ASSUMED, ReplayPlan, count_calls, with_power
from driftline.replay.pricing import PriceMap
from driftline.replay.result import Limits
from driftline.replay.segment import LoggedDecision
from driftline.replay.subject import AppSubject
from driftline.replay.workflows import History, Workflow


def plan_free(
    history: History,
    subject: AppSubject,
    candidate: Candidate,
    ledger: Ledger,
    limits: Limits,
    prices: PriceMap,
    incumbent: bool = True,
) -> ReplayPlan:
    """Plan one candidate's run: its pairs are workflows, each of as many calls an arm as the log has attempts.

    Not guaranteed: that so many calls are made. A workflow that departs may take more of them or fewer, and what an
    attempt after a rejection reads is longer than what is counted.

    Args:
        history: The workflows.
        subject: Today's rules.
        candidate: What is tried.
        ledger: What need not be paid again.
        limits: Of the run; with `calls_max` the plan ends with the last workflow that fits.
        prices: Of calls.
        incumbent: Whether the log's own model is asked again too.

    Raises:
        UsageError: A prompt lacks a variable, or a boundary or prompt is gone.
    """
    calls = calls_of(candidate, Incumbent(Candidate(incumbent=True)) if incumbent else None)
    workflows = _affordable(planned_workflows(history, limits), limits.calls_max, len(calls))
    counted = count_calls(_requests(workflows, subject, calls, limits), subject, ledger, prices)
    planned = Counter(workflow.stratum for workflow in workflows)
    every = {workflow.stratum for workflow in history.workflows}
    noise = _noise([len(workflow.decisions) for workflow in history.workflows])
    return with_power(replace(counted, pairs=len(workflows)), planned, sorted(every), limits, noise)


def _affordable(workflows: Sequence[Workflow], calls_max: int | None, arms: int) -> list[Workflow]:
    """Those up to the first that would take more calls than may be made."""
    found, calls = [], 0
    for workflow in workflows:
        calls += arms * sum(len(logged.decision.attempts) for logged in workflow.decisions)
        if calls_max is not None and calls > calls_max:
            break
        found.append(workflow)
    return found


def _requests(
    workflows: Sequence[Workflow], subject: AppSubject, calls: Sequence[ArmCall], limits: Limits
) -> Iterator[tuple[LoggedDecision, ArmCall, ProposalRequest]]:
    """A call for each attempt that the log has, of each arm; later attempts are taken to be like the first."""
    for workflow in workflows:
        for logged in workflow.decisions:
            for call in calls:
                request = call.arm.request(logged.decision, subject, "plan", limits.order_seed, call.asking)
                for _ in logged.decision.attempts:
                    yield logged, call, request


def _noise(decisions: Sequence[int]) -> float:
    """Share of workflows that are assumed to depart otherwise with nothing changed: any of their decisions may."""
    stays: float = (1 - NOISE_ASSUMED) ** fmean(decisions)
    return min(0.5, 1 - stays)
