"""The judge that the importer is given: producers may not import the verifier, so it is handed in."""

from __future__ import annotations

from collections.abc import Callable

from driftline.consumers.judging import Case
from driftline.consumers.proposing import Answer
from driftline.consumers.verifier_spec import SpecJudge
from driftline.producers import JudgedLine
from driftline.schemas import Verdict, canonical_json
from driftline.schemas.recorded import RecordedLine


def recorded_judge(spec: SpecJudge) -> Callable[[RecordedLine], JudgedLine]:
    """A callable that judges a recorded line as a replay will judge it again."""

    def judge(line: RecordedLine) -> JudgedLine:
        answer = Answer(text=line.response or None, facts={"reference": line.reference})
        judged = spec.for_stream(line.stream).judge(answer, Case({}, reference=line.reference))
        action = judged.action
        return JudgedLine(
            verdict=Verdict.ACCEPTED if judged.accepted else Verdict.REJECTED,
            rejections=judged.rejections,
            action_type=None if action is None else action.type,
            action_payload=None if action is None else canonical_json(dict(action.compared)),
        )

    return judge
