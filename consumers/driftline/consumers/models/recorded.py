"""`recorded/<path>#<model>[@replicate]`: answers from a file of recorded decisions.

Without `@replicate` the model's lowest one is meant, and a call's own `replicate` counts on from there, so that
a repeat is never its twin's copy. Beyond what was recorded there is no answer (`NOT_RECORDED`), and never the
answer to another event. A recording holds one answer an event: a second *attempt* gets the first one's answer again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from pydantic import JsonValue

from driftline.consumers.models.answers import CallFailed, ProviderAnswer, ProviderCall
from driftline.consumers.proposing import ProposerFailure
from driftline.schemas import BadInput, Usage, UsageError
from driftline.schemas.recorded import RecordedLine, read_recorded

FILES_CACHED_MAX = 8
"""Recordings held in memory at once; a replay has at most a handful of arms."""

_PINNED = re.compile(r"(?P<model>.+)@(?P<replicate>\d+)")


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """What a line says of the answer; its messages are left in the file."""

    text: str | None
    reference: JsonValue
    latency_ms: float | None
    cost_usd: float | None
    completion_tokens: int | None


@dataclass(frozen=True)
class RecordedAnswers:
    """The answers of one recording by (event id, model, replicate)."""

    path: Path
    rows: Mapping[tuple[str, str, int], RecordedAnswer]

    @staticmethod
    def load(path: Path) -> RecordedAnswers:
        """Read a recording, or what is in memory of it while the file has not changed.

        Raises:
            BadInput: No such file, a malformed line, or one answer given twice; names file, line and field.
        """
        try:
            stat = path.stat()
        except OSError:
            raise BadInput(f"no recording at {path}", "give the path of a .jsonl or .jsonl.gz file") from None
        return _load(path, stat.st_mtime_ns, stat.st_size)

    @cached_property
    def replicates(self) -> Mapping[str, Sequence[int]]:
        """Replicates of each model, ascending."""
        found: dict[str, set[int]] = {}
        for _, model, replicate in self.rows:
            found.setdefault(model, set()).add(replicate)
        return {model: sorted(numbers) for model, numbers in sorted(found.items())}

    def resolve(self, name: str) -> tuple[str, int | None]:
        """The model and the pinned replicate that `<model>[@replicate]` names; None where none is pinned.

        Raises:
            UsageError: The recording holds no such model or replicate; lists those it holds.
        """
        if name in self.replicates:
            return name, None
        pinned = _PINNED.fullmatch(name)
        if pinned and pinned["model"] in self.replicates:
            model, replicate = pinned["model"], int(pinned["replicate"])
            if replicate in self.replicates[model]:
                return model, replicate
            held = ", ".join(map(str, self.replicates[model]))
            raise UsageError(f"{self.path} holds no replicate {replicate} of {model}", f"it holds {held}")
        held = ", ".join(self.replicates) or "no model at all"
        raise UsageError(f"{self.path} holds no answers of the model {name!r}", f"it holds {held}")

    def get(self, event_id: str, name: str, repeat: int = 0) -> RecordedAnswer | None:
        """The answer to an event, or None where none was recorded.

        Args:
            event_id: What the recording names its rows by.
            name: `<model>[@replicate]`.
            repeat: How many answers of the model to the event were taken before this one.

        Raises:
            UsageError: The recording holds no such model or replicate.
        """
        model, pinned = self.resolve(name)
        choice = self.replicates[model] if pinned is None else [pinned]
        return self.rows.get((event_id, model, choice[repeat])) if repeat < len(choice) else None


def split_recorded(name: str) -> tuple[Path, str]:
    """The path and `<model>[@replicate]` of a model string without its `recorded/`.

    Raises:
        UsageError: There is no `#`, or nothing on one side of it.
    """
    path, _, model = name.rpartition("#")
    if not path or not model:
        raise UsageError(f"recorded/{name} names no model", "write recorded/<path>#<model>[@replicate]")
    return Path(path), model


def check_recorded(name: str) -> None:
    """Prove that the file and the model in it exist, before anything is asked.

    Raises:
        UsageError: They do not.
    """
    path, model = split_recorded(name)
    RecordedAnswers.load(path).resolve(model)


async def answer_recorded(call: ProviderCall) -> ProviderAnswer:
    """Look the answer up.

    Raises:
        CallFailed: The recording holds no answer to the event.
        UsageError: No such file, or no such model in it.
    """
    path, name = split_recorded(call.name)
    answers = RecordedAnswers.load(path)
    model, _ = answers.resolve(name)
    row = answers.get(call.key.workflow, name, call.key.replicate)
    if row is None:
        repeat = f", repeat {call.key.replicate}" if call.key.replicate else ""
        detail = f"{path} holds no answer of {name} to the event {call.key.workflow}{repeat}"
        raise CallFailed(ProposerFailure.NOT_RECORDED, detail)
    return ProviderAnswer(
        text=row.text,
        model_reported=model,
        usage=Usage(completion_tokens=row.completion_tokens),
        cost_usd=row.cost_usd,
        latency_ms=row.latency_ms,
        facts={"reference": row.reference},
    )


@lru_cache(maxsize=FILES_CACHED_MAX)
def _load(path: Path, _mtime_ns: int, _size: int) -> RecordedAnswers:
    rows: dict[tuple[str, str, int], RecordedAnswer] = {}
    for number, line in read_recorded(path):
        at = (line.event_id, line.model, line.replicate)
        if at in rows:
            what = f"a second answer of {line.model}@{line.replicate} to the event {line.event_id}"
            raise BadInput(f"{path}:{number}: replicate: {what}", "number repeated runs by `replicate`")
        rows[at] = _row(line)
    return RecordedAnswers(path, rows)


def _row(line: RecordedLine) -> RecordedAnswer:
    return RecordedAnswer(line.response, line.reference, line.latency_ms, line.cost_usd, line.completion_tokens)
