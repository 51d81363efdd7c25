"""What is versioned by its hash and lies on `driftline.artifacts`, so that a replay finds what a decision names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from driftline.consumers.app import App
from driftline.consumers.boundary import BoundBoundary
from driftline.consumers.policy import Policy
from driftline.log import ARTIFACTS, LogReader, Outgoing, artifact_record
from driftline.schemas import Codec, canonical_json, content_hash


@dataclass(frozen=True, slots=True)
class Artifact:
    """A content by its hash."""

    hash: str
    """`content_hash` of `content`."""
    kind: str
    """`prompt`, `verifier`, `policy`, `verifier_spec` or `avsc`."""
    name: str
    """Whose it is, for people."""
    content: str
    """The content as it stands."""


def app_artifacts(app: App, codec: Codec, timestamp_ms: int) -> list[Outgoing]:
    """Prompts, verifiers, policies and contracts of an app as records.

    A decision names its prompt and its verifier by their hashes; the verifier's content names the policies and the
    schema fingerprints.
    """
    found = {artifact.hash: artifact for artifact in _of(app)}
    return [
        artifact_record(a.hash, a.kind, a.name, a.content, codec, timestamp_ms, app=app.name) for a in found.values()
    ]


def read_artifacts(reader: LogReader, codec: Codec) -> dict[str, Artifact]:
    """All artifacts on the log, by hash."""
    decoded = (codec.decode(record.value).value for record in reader.read(reader.span(ARTIFACTS)))
    return {value["hash"]: Artifact(**value) for value in decoded}


def _of(app: App) -> Iterator[Artifact]:
    for bound in app.bound.values():
        yield from _of_boundary(f"{app.name}/{bound.boundary.name}", bound)
    for record in dict.fromkeys(record for _, record in app.subjects()):
        content = canonical_json(app.contracts.require(record).latest)
        yield Artifact(content_hash(content), "avsc", record, content)


def _of_boundary(name: str, bound: BoundBoundary) -> Iterator[Artifact]:
    yield Artifact(bound.boundary.prompt.hash, "prompt", name, bound.boundary.prompt.text)
    yield Artifact(bound.judge.version, "verifier", name, bound.judge.content)
    for verifier in bound.boundary.verifiers:
        if isinstance(verifier, Policy):
            yield Artifact(verifier.version, "policy", name, verifier.content)
