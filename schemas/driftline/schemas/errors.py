"""Every error that driftline raises on purpose.

The tree::

    DriftlineError                 root; one sentence, and the command that mends it
    ├── UsageError                 what the user asked for cannot be (exit 2; 75 where another process took the slot)
    │   ├── BadInput               a file, a line or a field of the user's is wrong
    │   ├── ContractError          a schema is missing, differs from the packaged one or breaks evolution
    │   ├── SpendCapReached        the models have cost what they may; what was decided is committed
    │   └── UnknownApp             no app of that name is configured or on the log
    ├── EnvironmentUnreachable     a broker, a registry or a provider does not answer (exit 3)
    │   ├── KafkaUnreachable
    │   └── RegistryUnreachable
    ├── Undecodable                bytes that no retry can decode; they go to the dead topic whole
    └── NotCanonical               a value that canonical JSON (RFC 8785) refuses

A caller reads facts from attributes, never from the text.
"""

from __future__ import annotations

from enum import StrEnum


class DriftlineError(Exception):
    """Root of the tree.

    Attributes:
        message: What is wrong and where, in one sentence.
        mend: What to do about it, usually a command; empty when nothing can be suggested.
        exit_code: The process exit code that the command line gives for it.
    """

    exit_code = 2

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        """The sentence and the mend, on one line."""
        return f"{self.message}; {self.mend}" if self.mend else self.message


class UsageError(DriftlineError):
    """What was asked for cannot be done as asked."""


class BadInput(UsageError):
    """A file, a line or a field that the user gave is wrong."""


class ContractError(UsageError):
    """A schema is missing, is not the packaged one, or breaks FULL_TRANSITIVE evolution."""


class UnknownApp(UsageError):
    """No app of that name is configured, importable or on the log."""


class SpendCapReached(UsageError):
    """The models have cost what the process may spend; nothing more is asked, and what was answered stands."""


class EnvironmentUnreachable(DriftlineError):
    """Something outside the process does not answer; the same command may work later."""

    exit_code = 3


class KafkaUnreachable(EnvironmentUnreachable):
    """No broker answered, or none is configured."""


class RegistryUnreachable(EnvironmentUnreachable):
    """The schema registry did not answer; what it would have said is unknown, so nothing is poison yet."""


class UndecodableReason(StrEnum):
    """Why bytes cannot become a record, as written to the dead topic's headers."""

    NO_VALUE = "no_value"
    NOT_WIRE_FORMAT = "not_wire_format"
    UNKNOWN_SCHEMA_ID = "unknown_schema_id"
    NOT_AVRO = "not_avro"
    INCOMPATIBLE = "incompatible"
    CORRUPT = "corrupt"
    TRAILING_BYTES = "trailing_bytes"
    NO_KEY = "no_key"
    BAD_HEADERS = "bad_headers"
    OVERSIZE = "oversize"
    NOT_CANONICAL = "not_canonical"
    EXHAUSTED = "exhausted"
    """Nothing is wrong with the bytes: no proposal passed, and the boundary sends such inputs to the dead topic."""


class Undecodable(DriftlineError):
    """Bytes that no retry can decode.

    Attributes:
        reason: The typed reason.
    """

    def __init__(self, reason: UndecodableReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason


class NotCanonical(DriftlineError):
    """A value with an integer over 2^53, NaN, an infinity or a lone surrogate (RFC 8785 refuses them)."""
