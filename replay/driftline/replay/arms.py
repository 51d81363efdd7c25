"""Arms: what the log says (L), the incumbent today (A') and a candidate (B), both of which are asked again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from driftline.consumers.engine import answer_of
from driftline.consumers.models.sources import is_recorded, source_version
from driftline.consumers.prompt import MessageSource
from driftline.consumers.proposing import Answer, CallKey, ProposalRequest, ProposerFailure, ToolCall
from driftline.replay.ledger import AnswerKey
from driftline.replay.levels import LOST, JudgedAnswer
from driftline.replay.segment import LoggedDecision
from driftline.replay.subject import Subject, case_of, state_after
from driftline.schemas import Attempt, Decision, UsageError, canonical_json, content_hash
from driftline.schemas.fields import escape_surrogates

LOG_ARM = "log"
TEST_PURPOSE, FLOOR_PURPOSE = "test", "floor"
INCUMBENT_ARM = "incumbent"


@dataclass(frozen=True, slots=True)
class Asking:
    """Which asking of a decision it is: what keeps its answer apart from every other answer to that decision."""

    arm: str = "candidate"
    """`candidate` or `incumbent`."""
    purpose: str = "test"
    """`test`, `floor` or `diagnosis`."""
    replicate: int = 0
    """Counted from 0; no two askings of one decision for one purpose share it, whatever their models."""

    @property
    def drawn_as(self) -> str:
        """The arm of its `CallKey`: a purpose of its own has draws of its own, where the replicates are the same."""
        return self.arm if self.purpose in (TEST_PURPOSE, FLOOR_PURPOSE) else f"{self.arm}/{self.purpose}"


TEST = Asking()


@dataclass(frozen=True)
class Candidate:
    """What is tried: where a part is None, the decision's own is kept.

    Args:
        model: `provider/name`.
        prompt: Takes the place of the recorded prompt.
        parameters: Laid over the recorded ones.
        incumbent: It is the incumbent, and may change nothing.

    Raises:
        UsageError: The model string has no provider, or nothing is tried.
    """

    model: str | None = None
    prompt: MessageSource | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    incumbent: bool = False

    def __post_init__(self) -> None:
        if not self.incumbent and self.model is None and self.prompt is None and not self.parameters:
            raise UsageError("the candidate changes nothing", "give --candidate, --prompt or --param")
        if self.model is not None and not all(self.model.partition("/")[::2]):
            raise UsageError(f"{self.model!r} names no model", "write it as provider/name, for example openai/gpt-4o")

    @property
    def is_free(self) -> bool:
        """Whether its answers are read from a recording and cost nothing."""
        return self.model is not None and is_recorded(self.model)

    def prompt_of(self, decision: Decision, subject: Subject) -> MessageSource:
        """The prompt that the candidate sees."""
        return self.prompt or subject.prompt(decision)

    def request(
        self, decision: Decision, subject: Subject, run_id: str, seed: int, asking: Asking = TEST
    ) -> ProposalRequest:
        """The call for a decision: its recorded context, first attempt (later ones answered another rejection).

        Raises:
            UsageError: The prompt is not to be had, or needs a variable that the context lacks.
        """
        return ProposalRequest(
            model=self.model or decision.model_requested,
            messages=tuple(self.prompt_of(decision, subject).messages(decision.context_value())),
            key=CallKey(
                decision.decision_id,
                decision.workflow,
                arm=asking.drawn_as,
                run=run_id,
                replicate=asking.replicate,
                seed=seed,
            ),
            parameters={**decision.parameters_value(), **self.parameters},
            json_schema=subject.json_schema(decision),
            timeout_s=subject.timeout_s(decision),
            tools=tuple(tool.shown for tool in subject.tools(decision)),
            may_ask=bool(subject.tools(decision)),
        )

    def key(self, decision: Decision, subject: Subject, request: ProposalRequest, asking: Asking = TEST) -> AnswerKey:
        """What the ledger files the answer under."""
        return AnswerKey(
            decision_id=decision.decision_id,
            attempt_chain=chain_hash(request),
            model=request.model,
            prompt_hash=self.prompt_of(decision, subject).hash,
            parameters=asked_with(request, subject.json_schema_hash(decision)),
            purpose=asking.purpose,
            replicate=asking.replicate,
        )


def chain_hash(request: ProposalRequest) -> str:
    """Hash of all that the model is told, and of whether it must answer without asking a tool again."""
    told = canonical_json([dict(message) for message in request.messages])
    return content_hash(f"must answer\n{told}" if request.tools and not request.may_ask else told)


def asked_with(request: ProposalRequest, schema_hash: str) -> str:
    """Canonical JSON of what an answer depends on beside the model and the messages: parameters, schema, tools,
    source."""
    parts: dict[str, Any] = {
        "parameters": dict(request.parameters),
        "schema": schema_hash,
        "source": source_version(request.model),
    }
    if request.tools:
        parts |= {"tools": [dict(tool) for tool in request.tools]}
    return canonical_json(parts)


@dataclass(frozen=True)
class Incumbent:
    """A', the incumbent today.

    Args:
        arm: Who is asked.
        runs: How often each decision is asked: the first run is A', and all of them are the noise floor.

    Raises:
        UsageError: It is never asked.
    """

    arm: Candidate
    runs: int = 1

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise UsageError("a noise floor takes at least one run of the incumbent", "for example --floor 3")


@dataclass(frozen=True)
class ArmCall:
    """One of the calls that every decision of a run takes."""

    arm: Candidate
    asking: Asking = TEST
    beside_today: bool = False
    """Whether its answer is held against one of the incumbent of today."""

    @property
    def ages(self) -> bool:
        """Whether its answer is of today only: what the incumbent answered is no word on what it answers now.

        An old answer of the candidate is not held against a new one of the incumbent either: what the environment did
        in between would be laid to the candidate.
        """
        return self.arm.incumbent or self.beside_today


def calls_of(candidate: Candidate, incumbent: Incumbent | None) -> list[ArmCall]:
    """The calls of each decision, in the order in which they are made: the candidate's, then the incumbent's."""
    runs = [] if incumbent is None else [ArmCall(incumbent.arm, floor_asking(run)) for run in range(incumbent.runs)]
    return [ArmCall(candidate, beside_today=incumbent is not None), *runs]


def floor_asking(run: int) -> Asking:
    """A cached run of the incumbent; run 0 is A'."""
    return Asking(INCUMBENT_ARM, FLOOR_PURPOSE, run)


def first_attempt(decision: Decision) -> Attempt:
    """The logged attempt that a candidate's first one is held against.

    It is the first that has an outcome. An attempt that was lost to a timeout or the provider told the next one
    nothing, so that this was asked the same question; behind a rejection, another question was asked.
    """
    for attempt in decision.attempts:
        if attempt.failure not in LOST:
            return attempt
        if attempt.raw_response is not None:
            break
    return decision.attempts[0]


def judge_logged(logged: LoggedDecision, subject: Subject) -> JudgedAnswer:
    """L: the logged first attempt, judged by today's verifier exactly as the candidate is."""
    return judge_answer(as_logged(answer_of(first_attempt(logged.decision))), logged.decision, subject)


def judge_answer(answer: Answer, decision: Decision, subject: Subject) -> JudgedAnswer:
    """An answer to a decision, with what today's verifier says of it."""
    judgement = subject.judge(decision).judge(answer, case_of(decision))
    return JudgedAnswer(answer, judgement, state_after(subject, decision, judgement))


def as_logged(answer: Answer) -> Answer:
    """The answer as both arms and the ledger hold it: no lone surrogates, and white space alone is no answer."""
    empty = answer.failure is None and not answer.tool_calls and not (answer.text or "").strip()
    return replace(
        answer,
        text=None if empty else escape_surrogates(answer.text),
        failure=ProposerFailure.EMPTY if empty else answer.failure,
        failure_detail=escape_surrogates(answer.failure_detail),
        model_reported=escape_surrogates(answer.model_reported),
        fingerprint=escape_surrogates(answer.fingerprint),
        finish_reason=escape_surrogates(answer.finish_reason),
        tool_calls=tuple(ToolCall(*map(escape_surrogates, astuple(call))) for call in answer.tool_calls),
    )


def drifted(decision: Decision, judged: JudgedAnswer) -> bool:
    """Whether today's verifier says otherwise of the logged first attempt than the verifier of then."""
    return (not first_attempt(decision).rejections) != judged.judgement.accepted
