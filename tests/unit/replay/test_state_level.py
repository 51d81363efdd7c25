"""The state level of a forced replay: what an answer would make of the recorded row, on the state-machine spine."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from driftline.consumers import Answer, Machine, Transition
from driftline.examples.renewals.app import OUTCOMES
from driftline.examples.renewals.app import app as renewals
from driftline.producers.renewals import synthetic_renewals
from driftline.replay.arms import judge_answer
from driftline.replay.subject import AppSubject
from driftline.replay.testing import decided
from driftline.schemas import Decision

MACHINE = Machine(
    "init",
    ["renewed", "lost"],
    [
        Transition("init", "driftline.renewals.RenewalDue", "due"),
        *(Transition("due", outcome, "renewed") for outcome in OUTCOMES[:3]),
        *(Transition("due", outcome, "lost") for outcome in OUTCOMES[3:]),
    ],
)
ON_MACHINE = AppSubject(replace(renewals, spine="state-machine", machine=MACHINE), {})


class Renewing:
    async def propose(self, request: object) -> Answer:
        return answer(OUTCOMES[0], {"term_months": 12, "rationale": "as it stands"})


def answer(record: str, payload: dict[str, object]) -> Answer:
    return Answer(json.dumps({"type": record, "payload": payload}))


def decision() -> Decision:
    """A decision whose recorded row is in the state `due`."""
    [made] = decided(renewals, list(synthetic_renewals(1, 1)), Renewing())
    context = {**made.context_value(), "row": {"state": "due"}, "legal": list(OUTCOMES), "row_version": 1}
    return made.model_copy(update={"context": json.dumps(context), "decided_at": datetime(2026, 7, 1, tzinfo=UTC)})


def test_an_accepted_answer_is_in_the_state_that_its_record_leads_to() -> None:
    renewed = judge_answer(answer(OUTCOMES[0], {"term_months": 12, "rationale": ""}), decision(), ON_MACHINE)
    lost = judge_answer(answer(OUTCOMES[3], {"rationale": ""}), decision(), ON_MACHINE)
    assert (renewed.hashes["state"], lost.hashes["state"]) == ("renewed", "lost")


def test_a_refused_answer_leaves_the_row_where_it_is() -> None:
    assert judge_answer(Answer("as you like"), decision(), ON_MACHINE).hashes["state"] == "due"


def test_an_event_log_has_no_state_level() -> None:
    judged = judge_answer(Answer("as you like"), decision(), AppSubject(renewals, {}))
    assert "state" not in judged.hashes
