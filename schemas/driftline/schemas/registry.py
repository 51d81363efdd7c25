"""The schema registry: any that speaks Confluent's REST API, through confluent-kafka's client."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from driftline.schemas.contracts import AvroSchema, Contract, avro_fingerprint
from driftline.schemas.errors import (
    ContractError,
    RegistryUnreachable,
    Undecodable,
    UndecodableReason,
    UsageError,
)

T = TypeVar("T")

COMPATIBILITY = "FULL_TRANSITIVE"
"""Replay reads every version there ever was, and old readers meet new records."""
REQUEST_TIMEOUT_S = 10.0
REQUEST_RETRIES_MAX = 2
RETRY_WAIT_MS = 200
RETRY_WAIT_MS_MAX = 1_000

_IN_PROCESS = "mock://"
_USERINFO = re.compile(r"//((?:(?!,\w+://).)*)@", re.DOTALL)
"""Greedy up to the last @ of an address: a password may hold what should have been quoted in it."""
_UNQUOTED = re.compile(r"[/?#@,\s]")
"""In credentials it makes an address fall apart elsewhere than at its @, and errors would tell the pieces."""
_MISSING = range(40400, 40500)
"""Error codes for "no such subject, version, schema or setting". A 404 without one comes from something else."""
_TRANSIENT = {408, 429}


@dataclass(frozen=True, slots=True)
class Registered:
    """One version of a subject."""

    version: int
    """From 1; deleted versions leave gaps."""
    schema_id: int
    """The id on the wire."""
    schema: AvroSchema
    """The schema as the registry gives it."""


def subject_name(topic: str, record: str) -> str:
    """TopicRecordNameStrategy: a topic holds several record types."""
    return f"{topic}-{record}"


def record_of(subject: str) -> str:
    """The record name in a subject; a full record name holds no `-`, a topic may."""
    return subject.rpartition("-")[2]


def redact(text: str) -> str:
    """A text, with the credentials of the addresses in it left out: `http://***@host`."""
    return _USERINFO.sub("//***@", text)


class _Refused(ContractError):
    """A registry has understood the request and said no, for good."""

    def __init__(self, message: str, mend: str, error: Any) -> None:
        super().__init__(message, mend)
        self.missing = error.error_code in _MISSING


class Registry:
    """The few calls that driftline makes; none of them is made per event.

    Nothing is requested before the first call. `mock://` addresses stay inside the process and this object.

    Args:
        url: Base URL of Confluent's API; several, separated by commas, are tried in turn. Its `user:password@` is
            used and never told.
        timeout_s: Longest silence of the registry within one request.
        retries_max: How often a request that failed without an answer is made again.
    """

    def __init__(
        self, url: str, *, timeout_s: float = REQUEST_TIMEOUT_S, retries_max: int = REQUEST_RETRIES_MAX
    ) -> None:
        self.url = redact(url)
        """Without the credentials: for people."""
        self._address = url
        self._timeout_s = timeout_s
        self._retries_max = retries_max
        self._client: Any = None
        self._ids: dict[tuple[str, str], int] = {}

    def ensure(self, topic: str, contract: Contract) -> int:
        """Id of the contract's latest version under (topic, record), registering every version that is not there.

        On return FULL_TRANSITIVE is in force for the subject, whoever created it.

        Raises:
            ContractError: The registry refuses a version as incompatible with what it already holds.
            RegistryUnreachable: It does not answer.
        """
        subject = subject_name(topic, contract.name)
        known = self._ids.get((subject, contract.fingerprint))
        if known is None:
            self._hold_compatibility(subject)
            known = self._lookup(subject, contract.latest)
            if known is None:
                known = self._register(subject, contract)
            self._ids[subject, contract.fingerprint] = known
        return known

    def resolve(self, topic: str, contract: Contract) -> int:
        """Id of the contract's latest version, which must be registered already as it is packaged.

        Raises:
            ContractError: It is not there, or what is there is another schema.
            RegistryUnreachable: The registry does not answer.
        """
        subject = subject_name(topic, contract.name)
        found = self._lookup(subject, contract.latest)
        if found is None:
            raise ContractError(
                f"the registry at {self.url} does not hold the packaged version of {subject}",
                "run `driftline schemas register`",
            )
        if avro_fingerprint(self.schema(found)) != contract.fingerprint:
            raise ContractError(
                f"schema {found} of {subject} is not the packaged .avsc", "run `driftline schemas check`"
            )
        return found

    def schema(self, schema_id: int) -> AvroSchema | None:
        """The schema of an id; None when the registry does not know the id.

        Raises:
            Undecodable: The id is known, and what it stands for is no Avro schema.
            ContractError: The registry refuses to say.
            RegistryUnreachable: It does not answer, so whether the id exists is unknown.
        """
        found = self._find(f"schema {schema_id}", lambda client: _with_text(client.get_schema(schema_id)))
        return None if found is None else self._parse(found)

    def subjects(self) -> list[str]:
        """All subjects, sorted.

        Raises:
            RegistryUnreachable: The registry does not answer.
        """
        return self._call("its subjects", lambda client: _sorted(client.get_subjects(), str))

    def versions(self, subject: str) -> list[int]:
        """Versions registered under a subject, oldest first; none for a subject that is not there.

        Raises:
            RegistryUnreachable: The registry does not answer.
        """
        return self._find(f"versions of {subject}", lambda client: _sorted(client.get_versions(subject), int)) or []

    def registered(self, subject: str) -> list[Registered]:
        """Every version of a subject, oldest first.

        Raises:
            RegistryUnreachable: The registry does not answer.
        """
        found = [self._version(subject, number) for number in self.versions(subject)]
        return [version for version in found if version is not None]

    def _version(self, subject: str, number: int) -> Registered | None:
        what = f"version {number} of {subject}"
        found = self._find(what, lambda client: _identified(client.get_version(subject, number)))
        return None if found is None else Registered(number, found[0], self._parse(found[1]))

    def _register(self, subject: str, contract: Contract) -> int:
        schema_id = 0
        for number, version in enumerate(contract.versions, 1):
            schema_id = self._register_one(subject, number, version)
        return schema_id

    def _register_one(self, subject: str, number: int, schema: AvroSchema) -> int:
        return self._call(
            f"version {number} of {subject}",
            lambda client: int(client.register_schema(subject, _avro(schema))),
            "run `driftline schemas check` to see the field",
        )

    def _lookup(self, subject: str, schema: AvroSchema) -> int | None:
        return self._find(subject, lambda client: int(client.lookup_schema(subject, _avro(schema)).schema_id))

    def _hold_compatibility(self, subject: str) -> None:
        """Put FULL_TRANSITIVE in force before a second version can be registered.

        Only where it is not in force already: a client with no right to change settings can still start.
        """
        if self._address.startswith(_IN_PROCESS) or self._level(subject) == COMPATIBILITY:
            return
        self._call(
            f"{COMPATIBILITY} for {subject}",
            lambda client: client.set_compatibility(subject, COMPATIBILITY),
            "let someone who may change the registry's settings run `driftline schemas register`",
        )

    def _level(self, subject: str) -> str | None:
        own: str | None = self._find(subject, lambda client: client.get_compatibility(subject))
        return own or self._find("its compatibility level", lambda client: client.get_compatibility())

    def _parse(self, schema: Any) -> AvroSchema:
        try:
            if schema.schema_type not in {None, "AVRO"}:
                raise ValueError(f"it is {schema.schema_type}")
            found: AvroSchema = json.loads(schema.schema_str)
        except ValueError as error:
            raise Undecodable(UndecodableReason.NOT_AVRO, f"the registry holds no Avro schema: {error}") from error
        return found

    def _find(self, what: str, request: Callable[[Any], T]) -> T | None:
        """One request for something that need not be there."""
        try:
            return self._call(what, request)
        except _Refused as error:
            if error.missing:
                return None
            raise

    def _call(self, what: str, request: Callable[[Any], T], mend: str = "") -> T:
        """One request for something that must be."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            return request(self._connect())
        except UsageError:
            raise
        except SchemaRegistryError as error:
            if _is_refusal(error):
                raise _Refused(f"the registry at {self.url} refuses {what}: {_line(error)}", mend, error) from error
            raise self._unreachable(f"HTTP {error.http_status_code}, which is no registry's answer") from error
        except Exception as error:
            raise self._unreachable(_line(error)) from error

    def _connect(self) -> Any:
        """The client; imported here because its import takes longer than most commands."""
        if self._client is None:
            from confluent_kafka.schema_registry import SchemaRegistryClient

            if any(_UNQUOTED.search(found) for found in _USERINFO.findall(self._address)):
                raise UsageError(
                    f"the registry's address {self.url!r} is wrong: its credentials hold a character with a meaning",
                    "write it percent-encoded, as %2F for /",
                )
            try:
                self._client = SchemaRegistryClient.new_client(self._settings())
            except (ValueError, TypeError) as error:
                raise UsageError(
                    f"the registry's address {self.url!r} is wrong: {_line(error)}", "it begins with http"
                ) from error
            # It keeps a socket open; the in-process mock has none to close.
            weakref.finalize(self, getattr(self._client, "close", lambda: None))
        return self._client

    def _settings(self) -> dict[str, Any]:
        if self._address.startswith(_IN_PROCESS):
            return {"url": self._address}
        return {
            "url": self._address,
            "timeout": self._timeout_s,
            "max.retries": self._retries_max,
            "retries.wait.ms": RETRY_WAIT_MS,
            "retries.max.wait.ms": RETRY_WAIT_MS_MAX,
        }

    def _unreachable(self, why: str) -> RegistryUnreachable:
        return RegistryUnreachable(
            f"no schema registry answers at {self.url}: {why}",
            "start one with `driftline registry start` or set DRIFTLINE_REGISTRY_URL",
        )


def _is_refusal(error: Any) -> bool:
    """Whether the answer is a registry's; all else may come from a proxy, a wrong path, or a registry in trouble."""
    status = error.http_status_code or 0
    if status == 404:
        return error.error_code in _MISSING
    return 400 <= status < 500 and status not in _TRANSIENT


def _sorted(answer: Any, kind: type[T]) -> list[T]:
    """A list of names or numbers; a TypeError where the answer is something else."""
    if not isinstance(answer, list) or not all(isinstance(item, kind) for item in answer):
        raise TypeError("the answer is not a registry's list")
    return sorted(answer)


def _with_text(schema: Any) -> Any:
    if not isinstance(schema.schema_str, str):
        raise TypeError("the answer holds no schema")
    return schema


def _identified(version: Any) -> tuple[int, Any]:
    return int(version.schema_id), _with_text(version.schema)


def _line(error: Exception, characters_max: int = 300) -> str:
    text = redact(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


def _avro(schema: AvroSchema) -> Any:
    from confluent_kafka.schema_registry import Schema

    return Schema(json.dumps(schema), "AVRO")
