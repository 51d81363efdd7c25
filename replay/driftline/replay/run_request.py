"""What a run was asked: kept beside its database, so that its decisions can be asked again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from driftline.consumers.prompt import Prompt
from driftline.replay.arms import Candidate, Incumbent
from driftline.replay.plain import first_line, plain
from driftline.replay.result import Limits
from driftline.replay.segment import Selection
from driftline.schemas import BadInput, UsageError

REQUEST = "request.json"
"""In the folder of the run."""


class Requested(Protocol):
    """What a command asks of a replay."""

    @property
    def app(self) -> str:
        """App as the user named it."""

    @property
    def candidate(self) -> Candidate:
        """What is tried."""

    @property
    def selection(self) -> Selection:
        """Which decisions."""

    @property
    def limits(self) -> Limits:
        """Of the test."""

    @property
    def verifier(self) -> str | None:
        """Path of a verifier spec."""

    @property
    def segment_file(self) -> Path | None:
        """A segment file in place of Kafka."""

    @property
    def incumbent(self) -> Incumbent | None:
        """What is asked beside the candidate."""


class RunPrompt(BaseModel):
    """A prompt that takes the place of the log's."""

    model_config = ConfigDict(frozen=True)

    name: str
    text: str
    """The whole template."""


class RunArm(BaseModel):
    """An arm that was asked; what is null is the log's own."""

    model_config = ConfigDict(frozen=True)

    model: str | None = None
    prompt: RunPrompt | None = None
    parameters: dict[str, JsonValue] = {}
    """Laid over the log's."""

    @staticmethod
    def of(candidate: Candidate) -> RunArm:
        """The arm of a candidate or incumbent."""
        prompt = candidate.prompt
        name = getattr(prompt, "name", "prompt")
        return RunArm(
            model=candidate.model,
            prompt=None if prompt is None else RunPrompt(name=name, text=prompt.text),
            parameters=plain(candidate.parameters),
        )

    def candidate(self, incumbent: bool = False) -> Candidate:
        """The arm, ready to be asked."""
        prompt = None if self.prompt is None else Prompt(self.prompt.text, self.prompt.name)
        return Candidate(self.model, prompt, self.parameters, incumbent=incumbent)


class RunRequest(BaseModel):
    """What a run was asked, as far as its decisions and arms go."""

    model_config = ConfigDict(frozen=True)

    form: int = 1
    """Of this file; goes up when an older reader would misread it."""
    app: str
    """As the user named it: an app of `driftline.toml`, `module:attribute`, or an imported app."""
    candidate: RunArm
    incumbent: RunArm = RunArm()
    """What was asked as the incumbent; all null for the log's own model."""
    segment_file: Path | None = None
    """Absolute; null where the decisions were read from Kafka."""
    verifier: Path | None = None
    """Absolute; a verifier spec in place of the imported one."""
    start: datetime | None = None
    """First event time of the selection."""
    stop: datetime | None = None
    """Event time before which it ends."""
    offsets: dict[int, tuple[int, int]] | None = None
    """Partition to `[start, stop)`."""
    order_seed: int = 0
    alpha: float = 0.05
    delta: float = 0.05

    def selection(self, workflows: frozenset[str]) -> Selection:
        """The run's range of the log, for the decisions of these workflows alone."""
        return Selection(self.start, self.stop, self.offsets, keys=workflows)


def write_request(folder: Path, request: Requested) -> Path:
    """Write what a run was asked beside its database; whole or not at all.

    Raises:
        BadInput: The folder cannot be written.
    """
    kept = _request_of(request)
    path, beside = folder / REQUEST, folder / f".{REQUEST}.writing"
    try:
        beside.write_text(kept.model_dump_json(indent=2) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        mend = "make room or free the folder, then run the same command: no call is paid again"
        raise BadInput(f"{path}: {first_line(error)}", mend) from error
    return path


def read_request(folder: Path) -> RunRequest:
    """What a run was asked.

    Raises:
        UsageError: The run was written by a driftline that did not keep it.
        BadInput: The file is none of this form.
    """
    path = folder / REQUEST
    mend = "run the same `driftline replay` again: no call is paid twice"
    if not path.exists():
        raise UsageError(f"run {folder.name} does not say what it was asked ({path} is missing)", mend)
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        request = RunRequest.model_validate(data)
    except (OSError, ValueError, ValidationError) as error:
        raise BadInput(f"{path}: {first_line(error)}", mend) from error
    if request.form != RunRequest.model_fields["form"].default:
        raise BadInput(f"{path} is of a later driftline", "read it with that one")
    return request


def _request_of(request: Requested) -> RunRequest:
    file, verifier, selection = request.segment_file, request.verifier, request.selection
    return RunRequest(
        app=request.app,
        candidate=RunArm.of(request.candidate),
        incumbent=RunArm() if request.incumbent is None else RunArm.of(request.incumbent.arm),
        segment_file=None if file is None else file.resolve(),
        verifier=None if verifier is None else Path(verifier).resolve(),
        start=selection.start,
        stop=selection.stop,
        offsets=None if selection.offsets is None else dict(selection.offsets),
        order_seed=request.limits.order_seed,
        alpha=request.limits.alpha,
        delta=request.limits.delta,
    )
