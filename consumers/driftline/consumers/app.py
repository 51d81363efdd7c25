"""An app: its boundaries, its fold, its contracts; named `module:attribute`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from driftline.consumers.boundary import Boundary, BoundBoundary
from driftline.consumers.effectors import Effector, check_effectors
from driftline.schemas import Contracts, DriftlineError, Event, UnknownApp, UsageError
from driftline.schemas.names import CONTROL_SETTING, DECISION, ESCALATED, ROW

if TYPE_CHECKING:
    from driftline.log import AppTopics

FoldFunction = Callable[[Mapping[str, Any], Event], Mapping[str, Any]]
"""(data so far, next event of the workflow) to the data after it. Deterministic; must not change its argument."""


@dataclass(frozen=True, slots=True)
class Fold:
    """How a workflow's facts become its row. Raise the version when the function's meaning changes."""

    function: FoldFunction
    version: str


@dataclass(frozen=True)
class App:
    """An app.

    Args:
        name: Prefix of its topics.
        boundaries: What it decides; no two of them on one event type.
        schemas: Folder of its `.avsc` files, `<record name>/<version>.avsc`.
        facts: Record names of the events that come from outside.
        fold: How facts become rows; None keeps no row.
        spine: `event-log` (P3): the row is a cache of the fold.
        effectors: What it does in the outside world when its boundaries have committed something.

    Raises:
        UsageError: Two boundaries on one event type or of one name, two effectors of one name, or an effector that
            acts on a record which no boundary commits.
    """

    name: str
    boundaries: Sequence[Boundary]
    schemas: Path
    facts: Sequence[str] = ()
    fold: Fold | None = None
    spine: Literal["event-log"] = "event-log"
    effectors: Sequence[Effector] = ()

    def __post_init__(self) -> None:
        names = [boundary.name for boundary in self.boundaries]
        streams = [stream for boundary in self.boundaries for stream in boundary.on]
        for kind, values in (("name", names), ("event type", streams)):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise UsageError(f"app {self.name}: two boundaries with the {kind} {', '.join(sorted(twice))}")
        check_effectors(self.name, self.boundaries, self.effectors)

    @cached_property
    def topics(self) -> AppTopics:
        """Its topics.

        Raises:
            UsageError: The app's name cannot be a topic's prefix.
        """
        from driftline.log import AppTopics  # not above: apps, and the engine with them, are imported without Kafka

        return AppTopics(self.name)

    @property
    def group(self) -> str:
        """Consumer group of its runtime."""
        return f"driftline.{self.name}"

    @cached_property
    def contracts(self) -> Contracts:
        """Its contracts and driftline's."""
        return Contracts.load(self.schemas)

    @cached_property
    def bound(self) -> dict[str, BoundBoundary]:
        """Boundaries with their judges, by name.

        Raises:
            ContractError: A proposed record has no usable contract.
        """
        return {b.name: BoundBoundary(b, b.chain(self.contracts)) for b in self.boundaries}

    @cached_property
    def by_stream(self) -> dict[str, BoundBoundary]:
        """Boundaries with their judges, by the event types they decide."""
        return {stream: bound for bound in self.bound.values() for stream in bound.boundary.on}

    def subjects(self) -> list[tuple[str, str]]:
        """Every (topic, record) that the app writes or reads."""
        committed = [name for boundary in self.boundaries for name in boundary.proposes]
        reported = [name for effector in self.effectors for name in effector.results]
        records = dict.fromkeys((*self.facts, *committed, *reported, ESCALATED))
        return [
            *((self.topics.events, record) for record in records),
            (self.topics.decisions, DECISION),
            (self.topics.state, ROW),
            (self.topics.control, CONTROL_SETTING),
        ]


def load_app(reference: str) -> App:
    """Import an app by `module:attribute`, the working folder included.

    Raises:
        UnknownApp: No such module or attribute, it is no `App`, or the module fails.
        DriftlineError: What the module itself raised of the kind, for example for a policy file that is not there.
    """
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise UnknownApp(f"{reference!r} does not name an app", "write it as module:attribute")
    found = getattr(_import(module_name, reference), attribute, None)
    if found is None:
        raise UnknownApp(f"app {reference}: the module has no {attribute}", "name the attribute that holds the App")
    if not isinstance(found, App):
        raise UnknownApp(f"app {reference}: {attribute} is a {type(found).__name__}, not an App")
    return found


def _import(module_name: str, reference: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except DriftlineError:
        raise
    except ModuleNotFoundError as error:
        raise UnknownApp(f"app {reference}: {error}", "check the module's name and the working folder") from error
    except Exception as error:
        why = " ".join(str(error).split())
        raise UnknownApp(f"app {reference}: importing it fails: {type(error).__name__}: {why}") from error
