"""What the commands share: finding an app, the settings of the log, progress, a clock."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from driftline.consumers.app import App, load_app
from driftline.consumers.artifacts import Artifact, read_artifacts
from driftline.consumers.verifier_spec import SpecJudge
from driftline.log import ARTIFACTS, AppTopics, KafkaReader, Settings, TopicAdmin, load_settings
from driftline.replay.segment import Segment, Selection
from driftline.replay.segment_file import read_segment_file
from driftline.replay.subject import AppSubject, RecordedSubject, Subject
from driftline.schemas import Codec, Contracts, UnknownApp, UsageError

SPEC_KIND = "verifier_spec"


class _Console(Console):
    """Prints to nobody once the reader of a pipe has left; the command goes on to its exit code."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# No markup: a topic[0] or a model's text is printed as it stands.
out = _Console(highlight=False, markup=False)
"""What a person asked for; scripts read it too."""
err = Console(stderr=True, highlight=False, markup=False)
"""Progress and asides."""


def say(line: str, style: str = "") -> None:
    """Print one line as it stands, however wide the terminal is."""
    out.print(line, style=style or None, soft_wrap=True)


def now() -> datetime:
    """The wall clock, UTC, milliseconds."""
    time = datetime.now(UTC)
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def find_app(name: str, settings: Settings) -> App | None:
    """The app of a name in `driftline.toml`, or of a `module:attribute`; None when the name is neither.

    Raises:
        UnknownApp: It is configured and cannot be imported.
    """
    reference = settings.apps.get(name, name)
    return load_app(reference) if ":" in reference else None


def require_app(name: str, settings: Settings) -> App:
    """As `find_app`, for commands that need the app's code.

    Raises:
        UnknownApp: There is none of that name.
    """
    found = find_app(name, settings)
    if found is None:
        known = ", ".join(settings.apps) or "none"
        raise UnknownApp(
            f"no app {name!r} is configured (configured: {known})",
            f'add `{name} = "module:attribute"` to [apps] in driftline.toml',
        )
    return found


@dataclass
class Log:
    """The log of one app, connected on first use."""

    settings: Settings
    contracts: Contracts

    @cached_property
    def reader(self) -> KafkaReader:
        """Reads ranges."""
        return KafkaReader(self.settings)

    @cached_property
    def codec(self) -> Codec:
        """Encodes and decodes."""
        return self.settings.codec(self.contracts)

    @cached_property
    def artifacts(self) -> dict[str, Artifact]:
        """Everything versioned by hash."""
        return read_artifacts(self.reader, self.codec)


def open_subject(name: str, verifier: str | None = None) -> tuple[Subject, Log]:
    """What is to be replayed under a name: an app of `driftline.toml`, or an imported recording on the log.

    Args:
        name: App name or `module:attribute`.
        verifier: Path of a verifier spec that takes the place of the imported one.

    Raises:
        UnknownApp: Neither.
        UsageError: A spec is given for an app that is code.
    """
    settings = load_settings()
    app = find_app(name, settings)
    if app is not None:
        refuse_spec(app, verifier)
        log = Log(settings, app.contracts)
        return AppSubject(app, log.artifacts), log
    log = Log(settings, Contracts.load())
    if AppTopics(name).decisions not in TopicAdmin(settings).partitions():
        known = ", ".join(settings.apps) or "none"
        raise UnknownApp(
            f"no app {name!r} is configured (configured: {known}) and none of that name was imported",
            "see `driftline import recorded --help`",
        )
    spec = SpecJudge.from_file(Path(verifier)) if verifier else _imported_spec(name, log)
    return RecordedSubject(name, spec, log.contracts), log


def open_subject_of_file(
    path: Path, name: str, selection: Selection, verifier: str | None = None
) -> tuple[Subject, Segment]:
    """What is to be replayed of a segment file: of an app that is code, or of an imported recording.

    Raises:
        UnknownApp: No app of that name is configured, and the file holds no verifier spec.
        UsageError: A spec is given for an app that is code, or the selection takes nothing of the file.
    """
    app = find_app(name, load_settings())
    segment, artifacts = read_segment_file(path, name if app is None else app.name, selection)
    return subject_of_file(path, name, artifacts, verifier), segment


def subject_of_file(path: Path, name: str, artifacts: Mapping[str, Artifact], verifier: str | None = None) -> Subject:
    """As `open_subject_of_file`, of the artifacts of a file alone.

    Raises:
        UnknownApp: As `open_subject_of_file`.
        UsageError: A spec is given for an app that is code.
    """
    app = find_app(name, load_settings())
    if app is not None:
        refuse_spec(app, verifier)
        return AppSubject(app, artifacts)
    specs = [artifact.content for artifact in artifacts.values() if artifact.kind == SPEC_KIND]
    if verifier is None and not specs:
        raise UnknownApp(
            f"no app {name!r} is configured, and {path} holds no verifier spec", "give --verifier SPEC.toml"
        )
    spec = SpecJudge.from_file(Path(verifier)) if verifier else SpecJudge.parse(specs[-1], f"verifier spec of {name}")
    return RecordedSubject(name, spec, Contracts.load())


def refuse_spec(app: App, verifier: str | None) -> None:
    """An app's boundaries have verifiers of their own.

    Raises:
        UsageError: A spec is given for it.
    """
    if verifier is not None:
        raise UsageError(f"app {app.name} is code and has its own verifiers", "leave --verifier out")


def _imported_spec(name: str, log: Log) -> SpecJudge:
    """The verifier spec that was imported last under the app's name."""
    span = log.reader.span(ARTIFACTS)
    values = [log.codec.decode(record.value).value for record in log.reader.read(span)]
    specs = [value for value in values if value["kind"] == SPEC_KIND and value["name"] == name]
    if not specs:
        raise UnknownApp(f"no verifier spec of {name!r} is on {ARTIFACTS}", "give one with --verifier SPEC.toml")
    return SpecJudge.parse(specs[-1]["content"], f"verifier spec of {name}")


@contextmanager
def progress_bar(description: str, total: float | None) -> Iterator[Any]:
    """A progress line on stderr, if that is a terminal, gone when done; yields a function of (completed, note)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f}" if total else "{task.completed:.0f}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(description, total=total, note="")
        yield lambda completed, note="": progress.update(task, completed=completed, note=note)
