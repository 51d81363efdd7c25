"""`driftline replay plan`: what a replay will cost and what it can find, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from driftline.console.common import out, say
from driftline.console.free_run import OpenedFree, check_models, open_free
from driftline.console.replay_options import Mode
from driftline.console.replay_run import LEDGER, Opened, ReplayRequest, plan_replays
from driftline.log import Settings
from driftline.replay.free_plan import plan_free
from driftline.replay.free_report import baseline_model, free_id_of
from driftline.replay.identity import arm_of, arms_of, prompt_diff, run_id_of
from driftline.replay.ledger import Ledger
from driftline.replay.plan import ReplayPlan, plan_data
from driftline.replay.report import tried_data
from driftline.replay.result import Limits
from driftline.replay.segment import Segment
from driftline.replay.subject import Subject
from driftline.replay.wording import candidate_text
from driftline.replay.workflows import segment_of


@dataclass(frozen=True)
class _Words:
    """How a plan of a mode speaks."""

    bound: str
    """Before calls and dollars."""
    pair: str
    rate: str
    """What changes."""
    noise: str
    """What nothing but noise does to pairs."""
    hint: str


WORDS = {
    Mode.FORCED.value: _Words(
        "at most", "pair", "the acceptance rate", "verdicts differ", "a change may show in actions sooner"
    ),
    Mode.FREE.value: _Words(
        "about",
        "workflow",
        "the workflows",
        "workflows depart otherwise",
        "what departs may take more calls or fewer than it took",
    ),
}


def print_plans(requests: Sequence[ReplayRequest], mode: Mode, as_json: bool) -> None:
    """Print the plan of each request; exits 0 whatever it says."""
    if mode is Mode.FREE:
        opened = open_free(requests)
        for request in requests:
            check_models(opened, request)
        told = [_told_free(opened, request) for request in requests]
    else:
        told = [_told(*planned, one) for planned, one in zip(plan_replays(requests), requests, strict=True)]
    if as_json:
        out.print_json(data=told[0] if len(told) == 1 else {"plans": told})
        return
    shown = ""
    for one in told:
        if one["prompt_diff"] != shown:
            say(one["prompt_diff"] + "\n", "dim")
            shown = one["prompt_diff"]
        _print(one, requests[0].limits)


def _told(opened: Opened, plan: ReplayPlan, request: ReplayRequest) -> dict[str, Any]:
    segment, subject, candidate = opened.segment, opened.subject, request.candidate
    run_id = run_id_of(segment, subject, candidate, request.limits, request.incumbent)
    baseline, arm = arms_of(segment, subject, candidate)
    return {
        "app": segment.app,
        "mode": Mode.FORCED.value,
        "run_id": run_id,
        "baseline": baseline.model,
        "candidate": arm.model,
        "tried": tried_data(candidate, request.verifier, arm.verifier_version),
        "incumbent": _incumbent(segment, subject, request),
        "decisions": len(segment.decisions),
        "history_from": {str(partition): low for partition, low in segment.history_from.items()},
        "alpha": request.limits.alpha,
        "budget_usd": request.limits.usd_max,
        "paid_usd": _paid_usd(opened.settings, run_id),
        **plan_data(plan),
        "prompt_diff": prompt_diff(segment, subject, candidate),
    }


def _told_free(opened: OpenedFree, request: ReplayRequest) -> dict[str, Any]:
    history, candidate, settings = opened.history, request.candidate, opened.log.settings
    with closing(Ledger(settings.home / LEDGER)) as ledger:
        plan = plan_free(history, opened.subject, candidate, ledger, request.limits, opened.prices)
    run_id = free_id_of(history, opened.subject, candidate, request.limits, incumbent=True)
    baseline = baseline_model(history)
    return {
        "app": history.app,
        "mode": Mode.FREE.value,
        "run_id": run_id,
        "baseline": baseline,
        "candidate": candidate.model or baseline,
        "tried": tried_data(candidate),
        "incumbent": {"model": baseline, "runs": 1},
        "workflows": len(history.workflows),
        "decisions": sum(len(workflow.decisions) for workflow in history.workflows),
        "alpha": request.limits.alpha,
        "budget_usd": request.limits.usd_max,
        "paid_usd": _paid_usd(settings, run_id),
        **plan_data(plan),
        "prompt_diff": prompt_diff(segment_of(history), opened.subject, candidate),
    }


def _paid_usd(settings: Settings, run_id: str) -> float:
    """What the run has paid before it was stopped: the budget holds it too."""
    with closing(Ledger(settings.home / LEDGER)) as ledger:
        return ledger.paid_usd(run_id)


def _incumbent(segment: Segment, subject: Subject, request: ReplayRequest) -> dict[str, Any] | None:
    if request.incumbent is None:
        return None
    return {"model": arm_of(segment, subject, request.incumbent.arm).model, "runs": request.incumbent.runs}


def _print(told: Mapping[str, Any], limits: Limits) -> None:
    mode = "" if told["mode"] == Mode.FORCED.value else f", {told['mode']}"
    say(f"PLAN  {told['app']}: {told['baseline']} → {candidate_text(told)}{mode}", "bold")
    for line in (*_cost(told), *_findings(told)):
        say(f"  {line}")
    pairs, power = WORDS[told["mode"]].pair + "s", told["power"]
    out.print("", _power(power, _calls_allowed(told, limits), pairs), "", _strata(power["strata"], pairs))


def _cost(told: Mapping[str, Any]) -> list[str]:
    """At most: a forced run stops as soon as its verdict is in."""
    bound, free = WORDS[told["mode"]].bound, told["mode"] == Mode.FREE.value
    decisions = f"{told['decisions']} decisions" + (f" in {told['workflows']} workflows" if free else "")
    tokens = f"{told['prompt_tokens']:,.0f} tokens read, {told['completion_tokens']:,.0f} written"
    basis = f"{told['recorded_usage']:.0%} of the calls by the log's own usage, the others by the length of texts"
    lines = [
        f"{bound} {told['to_pay']} calls to pay ({told['calls']} needed, {told['in_ledger']} in the ledger) "
        f"of {decisions}",
        f"{'price unknown' if told['usd'] is None else f'{bound} ' + _usd(told['usd'])}: {tokens} ({basis})",
    ]
    if told["incumbent"] is not None:
        asked = f"of them {told['incumbent_calls']} of {told['incumbent']['model']}, the incumbent"
        how = "asked again" if free else f"{told['incumbent']['runs']} a decision; its answers count for a day"
        lines.insert(1, f"{asked}, {how}")
    if told["spread_calls"]:
        usd = "price unknown" if told["spread_usd"] is None else f"at most {_usd(told['spread_usd'])} more"
        open_ = "further calls in strata that are still open (--no-mmd: none)"
        lines.append(f"then at most {told['spread_calls']} {open_}: {usd}")
    if told["unpriced"]:
        lines.append(f"no price is known of {', '.join(told['unpriced'])}: needs --allow-unpriced")
    lines.append(f"prices: {told['price_map'] or 'none needed, recorded/ and sim/ cost nothing'}")
    if told["budget_usd"] is not None:
        lines.append(f"budget ${told['budget_usd']:g}: {_budget(told)}")
    return lines


def _budget(told: Mapping[str, Any]) -> str:
    if told["usd"] is None:
        return "cannot be held without a price"
    paid = f"{_usd(told['paid_usd'])} of it is paid, " if told["paid_usd"] else ""
    left = max(0.0, told["budget_usd"] - told["paid_usd"])
    if told["usd"] <= left:
        return f"{paid}holds the whole segment"
    return f"{paid}ends after about {told['to_pay'] * left / told['usd']:.0f} {'more ' if paid else ''}paid calls"


def _findings(told: Mapping[str, Any]) -> list[str]:
    power, words = told["power"], WORDS[told["mode"]]
    smallest = power["smallest_change"]
    found = "none of those below" if smallest is None else f"{100 * smallest:.0f} points of {words.rate}"
    return [
        f"smallest change found with {power['power_wanted']:.0%} power at alpha {told['alpha']:g}: {found}",
        f"assumed: {power['noise_assumed']:.0%} of {words.noise} by the model's own noise; {words.hint}",
        f"run {told['run_id']}",
    ]


def _calls_allowed(told: Mapping[str, Any], limits: Limits) -> str:
    if told["mode"] == Mode.FREE.value:
        within = f"{told['pairs']} workflows"
    else:
        within = f"{told['pairs']} calls" if told["incumbent"] is None else f"{told['pairs']} decisions"
    return f"power within {within}" + ("" if limits.calls_max is None else " (--max-calls)")


def _power(power: Mapping[str, Any], title: str, pairs: str) -> Table:
    table = _table(title, ("change", "power", f"median {pairs}", "median cost"))
    for one in power["by_change"]:
        events = "" if one["events"] is None else f"{one['events']:.0f}"
        cost = "" if one["events"] is None else _usd(one["usd"])
        table.add_row(f"{100 * one['change']:.0f} pp", f"{one['power']:.0%}", events, cost)
    return table


def _strata(strata: Sequence[Mapping[str, Any]], pairs: str) -> Table:
    table = _table("strata", ("stratum", pairs, "smallest change named in half of all runs"))
    table.columns[0].justify = "left"
    for one in strata:
        smallest = one["smallest_change"]
        table.add_row(one["stratum"], str(one["events"]), "none" if smallest is None else f"{100 * smallest:.1f} pp")
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None)
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _usd(value: float | None) -> str:
    return "price unknown" if value is None else f"${value:.4f}"
