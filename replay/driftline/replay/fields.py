"""Which fields of an action changed, by JSON Pointer (RFC 6901): one row a field, with what stood there before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from driftline.consumers.judging import Action
from driftline.replay.levels import ACTION, JudgedAnswer


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that two actions have otherwise; None, which JSON writes as null, where one does not have it."""

    path: str
    """JSON Pointer into `{"type": …, "payload": {…}}`, as rejections have it; empty for the whole action."""
    before: Any
    after: Any


def field_changes(baseline: JudgedAnswer, candidate: JudgedAnswer) -> list[FieldChange]:
    """The fields in which two answers' actions differ; none where the action level has them equal.

    What is compared is what the comparators of the schema leave: free text is never among them. Where the actions
    are of different types, that alone is the change, for fields of two records are not the same fields. Where one
    answer has no action at all, the change is of the whole.
    """
    if baseline.hashes.get(ACTION) == candidate.hashes.get(ACTION):
        return []
    before, after = baseline.judgement.action, candidate.judgement.action
    if before is None or after is None:
        return [FieldChange("", _whole(before), _whole(after))]
    if before.type != after.type:
        return [FieldChange("/type", before.type, after.type)]
    one, other = dict(before.compared), dict(after.compared)
    return list(_changes(one, other, "/payload")) or [FieldChange("/payload", one, other)]


def _whole(action: Action | None) -> dict[str, Any] | None:
    return None if action is None else {"type": action.type, "payload": dict(action.compared)}


def _changes(before: Any, after: Any, at: str) -> Iterator[FieldChange]:
    """Down to the fields. An array is one: an item put in before others would move them all."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted(before.keys() | after.keys()):
            where = f"{at}/{escaped(name)}"
            if name in before and name in after:
                yield from _changes(before[name], after[name], where)
            else:
                yield FieldChange(where, before.get(name), after.get(name))
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield FieldChange(at, before, after)


def escaped(name: str) -> str:
    """A name as a token of a JSON Pointer."""
    return name.replace("~", "~0").replace("/", "~1")
