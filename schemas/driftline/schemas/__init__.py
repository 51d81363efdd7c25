"""Contracts: what is on the log, its wire format, and the registry that holds its schemas."""

from driftline.schemas.alerts import (
    Alert,
    ArmRef,
    DivergenceAlert,
    EnvironmentDriftAlert,
    MigrationAlert,
    MigrationPredicate,
    MigrationRun,
    ReplayCompleted,
    StratumChange,
)
from driftline.schemas.canonical import canonical_json, content_hash, parse_json, to_json_data
from driftline.schemas.cloudevents import Envelope, Event
from driftline.schemas.contracts import Contract, Contracts
from driftline.schemas.decision import Attempt, Decision, InputCoordinates, Read, ReadStatus, Usage, Verdict
from driftline.schemas.errors import (
    BadInput,
    ContractError,
    DriftlineError,
    EnvironmentUnreachable,
    KafkaUnreachable,
    NotCanonical,
    RegistryUnreachable,
    Undecodable,
    UndecodableReason,
    UnknownApp,
    UsageError,
)
from driftline.schemas.registry import Registry
from driftline.schemas.rejection import Rejection, RejectionCode, RejectionFeedback
from driftline.schemas.shape import Shape
from driftline.schemas.wire import Codec, Decoded

__all__ = [
    "Alert",
    "ArmRef",
    "Attempt",
    "BadInput",
    "Codec",
    "Contract",
    "ContractError",
    "Contracts",
    "Decision",
    "Decoded",
    "DivergenceAlert",
    "DriftlineError",
    "Envelope",
    "EnvironmentDriftAlert",
    "EnvironmentUnreachable",
    "Event",
    "InputCoordinates",
    "KafkaUnreachable",
    "MigrationAlert",
    "MigrationPredicate",
    "MigrationRun",
    "NotCanonical",
    "Read",
    "ReadStatus",
    "Registry",
    "RegistryUnreachable",
    "Rejection",
    "RejectionCode",
    "RejectionFeedback",
    "ReplayCompleted",
    "Shape",
    "StratumChange",
    "Undecodable",
    "UndecodableReason",
    "UnknownApp",
    "Usage",
    "UsageError",
    "Verdict",
    "canonical_json",
    "content_hash",
    "parse_json",
    "to_json_data",
]
