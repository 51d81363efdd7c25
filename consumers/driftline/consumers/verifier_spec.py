"""The verifier of recordings: `SPEC.toml` says, per stream, how an answer is found in a text and when it is accepted.

Example::

    [streams."happy-number"]
    extract = ['\\\\boxed\\{([^}]*)\\}']   # regexes (last match of group 1) or json:/Pointer; first match counts
    normalise = ["strip"]               # strip | upper | alphanumeric, in the order given
    accept = "equals-reference"         # or reference-flag | matches | non-empty

`extract` is applied to the reference too; a reference in which nothing is found counts as it stands. `matches`
accepts what an extractor found or, with `pattern`, an answer that the pattern matches whole. Lone surrogates count as
their escapes (`\\ud800`), in which form the log holds an answer.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from driftline.consumers.actions import answer_action
from driftline.consumers.extracting import check_extractor, compile_regex, extract, text_of
from driftline.consumers.judging import Case, Judgement, Proposal
from driftline.consumers.proposing import Answer
from driftline.schemas import BadInput, Rejection, RejectionCode, content_hash
from driftline.schemas.fields import escape_surrogates

RULE = "verifier-spec"
_TRUE = {"1", "1.0", "true", "yes"}

_NORMALISERS: Mapping[str, Callable[[str], str]] = {
    "strip": str.strip,
    "upper": str.upper,
    "alphanumeric": lambda text: "".join(character for character in text if character.isalnum()),
}


class StreamSpec(BaseModel):
    """How the answers of one stream are read and judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extract: tuple[str, ...] = ()
    """Regexes with one group, or `json:/Pointer`; empty takes the whole text."""
    normalise: tuple[Literal["strip", "upper", "alphanumeric"], ...] = ()
    """Applied in order to the answer and to the reference."""
    accept: Literal["equals-reference", "reference-flag", "matches", "non-empty"]
    """When an answer is accepted."""
    pattern: str | None = None
    """For `matches`: a regex that must match the whole normalised answer."""

    @field_validator("extract")
    @classmethod
    def _extractors_work(cls, extract: tuple[str, ...]) -> tuple[str, ...]:
        for text in extract:
            check_extractor(text)
        return extract

    @model_validator(mode="after")
    def _pattern_fits(self) -> StreamSpec:
        if self.pattern is not None and self.accept != "matches":
            raise ValueError('`pattern` goes only with accept = "matches"')
        if self.accept == "matches" and self.pattern is None and not self.extract:
            raise ValueError('accept = "matches" needs `pattern` or `extract`')
        if self.pattern is not None:
            compile_regex(self.pattern)
        return self

    def answer(self, text: str) -> str | None:
        """The normalised answer in a text; None when no extractor finds one."""
        found = text if not self.extract else next(filter(_is_found, (extract(e, text) for e in self.extract)), None)
        if found is None:
            return None
        for name in self.normalise:
            found = _NORMALISERS[name](found)
        return found

    def reference(self, value: Any) -> str:
        """The normalised reference answer."""
        text = text_of(value)
        found = self.answer(text)
        if found is not None:
            return found
        return StreamSpec(normalise=self.normalise, accept="non-empty").answer(text) or ""


@dataclass(frozen=True)
class SpecJudge:
    """A judge made of a verifier spec.

    Not guaranteed: regexes run without a time limit, as the spec's author wrote them.
    """

    text: str
    streams: Mapping[str, StreamSpec]
    name: str = "SPEC.toml"

    @classmethod
    def parse(cls, text: str, name: str = "SPEC.toml") -> SpecJudge:
        """Read a spec.

        Raises:
            BadInput: Not TOML, an unknown field or value, or a regex that does not compile, with the field.
        """
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BadInput(f"{name}: not TOML: {error}", "mend that line") from error
        streams = {stream: _stream(fields, stream, name) for stream, fields in _tables(data, name).items()}
        return cls(text, streams, name)

    @classmethod
    def from_file(cls, path: Path) -> SpecJudge:
        """Read a spec from a file.

        Raises:
            BadInput: No such file, or as `parse`.
        """
        try:
            return cls.parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"verifier spec {path}: {error}", "give the path of a TOML file") from error

    @cached_property
    def version(self) -> str:
        """Hash of the spec's text."""
        return content_hash(self.text)

    def for_stream(self, stream: str) -> StreamJudge:
        """The judge of one stream.

        Raises:
            BadInput: The spec does not name the stream.
        """
        if stream not in self.streams:
            known = ", ".join(self.streams)
            raise BadInput(
                f'{self.name}: no [streams."{stream}"]', f"add the table; the spec has {known or 'no streams'}"
            )
        return StreamJudge(self.version, self.streams[stream])


@dataclass(frozen=True, slots=True)
class StreamJudge:
    """The judge of one stream of a recording."""

    version: str
    spec: StreamSpec

    def judge(self, answer: Answer, case: Case) -> Judgement:
        """Extract the answer, and accept it as the spec says."""
        if answer.text is None:
            return Judgement((self._reject(RejectionCode.NO_ANSWER, "an answer", answer.failure or "nothing"),))
        text = escape_surrogates(answer.text)
        found = self.spec.answer(text)
        if found is None:
            return Judgement((self._reject(RejectionCode.NOT_EXTRACTED, "an answer", text[-80:]),))
        expected = self._expected_of(found, answer, case)
        rejections = () if expected is None else (self._reject(RejectionCode.WRONG_ANSWER, expected, found[:80]),)
        return Judgement(rejections, Proposal("answer", {"answer": found}), partial(answer_action, found))

    def _expected_of(self, found: str, answer: Answer, case: Case) -> str | None:
        """What was expected instead; None when the answer is accepted."""
        match self.spec.accept:
            case "equals-reference":
                wanted = None if case.reference is None else self.spec.reference(case.reference)
                return None if found == wanted else wanted or "a reference answer, and there is none"
            case "reference-flag":
                flag = (answer.facts or {}).get("reference")
                return None if str(flag).lower() in _TRUE else "an answer that the recorded judge accepts"
            case "matches":
                pattern = self.spec.pattern
                return None if pattern is None or re.fullmatch(pattern, found) else pattern
            case "non-empty":
                return None if found else "an answer that is not empty"

    def _reject(self, code: RejectionCode, expected: str, actual: str) -> Rejection:
        return Rejection(code=code, expected=expected, actual=actual, rule_id=RULE, rule_version=self.version)


def _is_found(value: str | None) -> bool:
    return value is not None


def _tables(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    unknown = sorted(data.keys() - {"streams"})
    if unknown or not isinstance(data.get("streams"), dict):
        raise BadInput(f'{name}: a spec holds tables [streams."NAME"] and nothing else', "see the README's example")
    streams: Mapping[str, Any] = data["streams"]
    return streams


def _stream(fields: Any, stream: str, name: str) -> StreamSpec:
    where = f'{name}: [streams."{stream}"]'
    if not isinstance(fields, dict):
        raise BadInput(f"{where} is no table", "see the README's example")
    try:
        return StreamSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        why = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise BadInput(f"{where}{field and ' '}{field}: {why}", "mend that field") from error
