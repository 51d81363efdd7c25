"""The job by hand, as a careful engineer would write it without driftline: from an event's bytes to two records.

It decodes the event, builds the context, renders the prompt, asks the proposer, parses its JSON, checks the rule,
and encodes the decision, with the fields of `driftline.Decision`, and the outcome. The schemas are resolved once.
It imports nothing of driftline: the peers run it in environments of their own.
"""

from __future__ import annotations

import hashlib
import json
import struct
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

Headers = list[tuple[str, bytes]]
Propose = Callable[[list[dict[str, str]]], Awaitable[str]]
NAMESPACE = uuid.UUID("6d0a4c46-8a7b-5d4c-9a8e-5b4f0f1b7c11")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Decided:
    """The two records of a decision; both go to the input's partition, under its key and timestamp."""

    decision: bytes
    decision_headers: Headers
    outcome: bytes
    outcome_headers: Headers


class Job:
    """What is prepared once: schemas, ids, template, hashes.

    Args:
        given: The file that `kit.peering` writes: app, topics, schemas with their ids, prompt, policy, proposal.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.app: str = given["app"]
        self._schemas = {name: parse_schema(schema) for name, (_, schema) in given["schemas"].items()}
        self._frames = {name: struct.pack(">bI", 0, number) for name, (number, _) in given["schemas"].items()}
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True)
        parts = given["prompt"].split("---user---\n")
        self._templates = [environment.from_string(part.strip("\n")) for part in parts]
        self._prompt_hash = content_hash(given["prompt"])
        self._version = content_hash(given["policy"])
        self._source = f"driftline:{self.app}/renewal"

    @classmethod
    def read(cls, path: str) -> Job:
        """The job of a file."""
        return cls(json.loads(Path(path).read_text()))

    async def decide(
        self, value: bytes, key: bytes, headers: Sequence[tuple[str, bytes]], at: tuple[str, int, int], ask: Propose
    ) -> Decided | None:
        """Decide one event; None for what the app itself has committed to the topic."""
        envelope = {name: text.decode() for name, text in headers}
        if envelope["ce_type"] != self.given["stream"]:
            return None
        event = self._decode(value)
        time = datetime.fromisoformat(envelope["ce_time"])
        context = canonical({"event": jsonable(event), "stream": envelope["ce_type"], "row": {}})
        seen = json.loads(context)
        messages = [
            {"role": role, "content": template.render(seen)}
            for role, template in zip(("system", "user"), self._templates, strict=True)
        ]
        answer = await ask(messages)
        proposal, rejections = self._judge(answer)
        if rejections:
            raise NotImplementedError("a rejected proposal: the proposer of the benchmark makes none")
        return self._decided(envelope, key.decode(), time, at, context, answer, proposal)

    def _judge(self, answer: str) -> tuple[dict[str, Any], list[str]]:
        proposal = json.loads(answer)
        if set(proposal) != {"type", "payload"} or proposal["type"] != self.given["proposes"]:
            return proposal, ["not a proposal"]
        payload = proposal["payload"]
        well_formed = (
            isinstance(payload["term_months"], int)
            and isinstance(payload["rationale"], str)
            and isinstance(payload["discount_pct"], (int, float, type(None)))
        )
        if not well_formed:
            return proposal, ["not the schema"]
        over = payload["discount_pct"] is not None and payload["discount_pct"] > self.given["cap_pct"]
        return proposal, ["discount over the cap"] if over else []

    def _decided(
        self,
        envelope: dict[str, str],
        workflow: str,
        time: datetime,
        at: tuple[str, int, int],
        context: str,
        answer: str,
        proposal: dict[str, Any],
    ) -> Decided:
        topic, partition, offset = at
        decision_id = derived(self.app, "renewal", f"{topic}[{partition}]@{offset}")
        outcome_id = derived(self.app, "renewal", envelope["ce_id"], "0")
        decision = {
            "decision_id": decision_id,
            "app": self.app,
            "boundary": "renewal",
            "stream": envelope["ce_type"],
            "workflow": workflow,
            "input": {
                "topic": topic,
                "partition": partition,
                "offset": offset,
                "event_id": envelope["ce_id"],
                "event_time": time,
            },
            "context": context,
            "context_hash": content_hash(context),
            "context_ref": None,
            "prompt_hash": self._prompt_hash,
            "model_requested": "bench/instant",
            "parameters": '{"temperature":0}',
            "attempts": [
                {
                    "number": 1,
                    "model_reported": None,
                    "fingerprint": None,
                    "raw_response": answer,
                    "finish_reason": None,
                    "failure": None,
                    "facts": None,
                    "usage": {"prompt_tokens": None, "completion_tokens": None},
                    "cost_usd": None,
                    "latency_ms": None,
                    "rejections": [],
                    "reads": [],
                    "model_requested": None,
                }
            ],
            "verdict": "accepted",
            "action_type": proposal["type"],
            "action_payload": canonical(proposal["payload"]),
            "verifier_version": self._version,
            "committed_event_ids": [outcome_id],
            "row_version_before": None,
            "row_version_after": None,
            "control_offset": None,
            "decided_at": datetime.now(UTC),
        }
        cause, said = envelope["ce_id"], envelope["ce_time"]
        return Decided(
            self._encode("driftline.Decision", decision),
            self._headers(decision_id, "driftline.Decision", workflow, said, cause),
            self._encode(proposal["type"], proposal["payload"]),
            self._headers(outcome_id, proposal["type"], workflow, said, cause),
        )

    def _decode(self, value: bytes) -> dict[str, Any]:
        body = BytesIO(value)
        body.seek(5)
        found: Any = schemaless_reader(body, self._schemas[self.given["reads"]], None)
        return dict(found)

    def _encode(self, name: str, value: dict[str, Any]) -> bytes:
        out = BytesIO()
        out.write(self._frames[name])
        schemaless_writer(out, self._schemas[name], value)
        return out.getvalue()

    def _headers(self, event_id: str, kind: str, workflow: str, time: str, cause: str) -> Headers:
        return [
            ("ce_specversion", b"1.0"),
            ("ce_id", event_id.encode()),
            ("ce_type", kind.encode()),
            ("ce_source", self._source.encode()),
            ("ce_subject", workflow.encode()),
            ("ce_time", time.encode()),
            ("content-type", b"application/avro"),
            ("ce_causationid", cause.encode()),
        ]


def derived(*parts: str) -> str:
    return str(uuid.uuid5(NAMESPACE, "\x1f".join(parts)))


def content_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def jsonable(event: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if isinstance(value, datetime)
        else int(value)
        if isinstance(value, float) and value.is_integer()
        else value
        for name, value in event.items()
    }


def epoch_ms(headers: Sequence[tuple[str, bytes]]) -> int:
    """The event time of a record as Kafka stamps it."""
    time = next(text for name, text in headers if name == "ce_time")
    return (datetime.fromisoformat(time.decode()) - EPOCH) // timedelta(milliseconds=1)
