"""An app: its boundaries, its fold, its contracts; named `module:attribute`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from driftline.consumers.boundary import Boundary, BoundBoundary
from driftline.consumers.effectors import Effector, check_effectors
from driftline.consumers.fold import Fold
from driftline.consumers.machine import Machine
from driftline.consumers.machine_rows import machine_fold
from driftline.consumers.sources import RESERVED
from driftline.schemas import Contracts, DriftlineError, UnknownApp, UsageError
from driftline.schemas.names import CONTROL_SETTING, DECISION, ESCALATED, ROW, SPINE_RECORDS

if TYPE_CHECKING:
    from driftline.log import AppTopics


@dataclass(frozen=True)
class App:
    """An app.

    Args:
        name: Prefix of its topics.
        boundaries: What it decides; no two of them on one event type.
        schemas: Folder of its `.avsc` files, `<record name>/<version>.avsc`.
        facts: Record names of the events that come from outside. On the state machine a record that a boundary
            proposes is taken from outside only where it stands here too.
        fold: How facts become rows; None keeps no row.
        spine: `event-log` (P3): the row is a cache of the fold. `state-machine` (P5): the row is the truth.
        machine: The transition table of the state-machine spine.
        effectors: What it does in the outside world when its boundaries have committed something.

    Raises:
        UsageError: Two boundaries on one event type or of one name, or one named as the spine or a timer is, two
            effectors of one name, an effector that acts on a record which no boundary commits, a spine and a
            transition table that do not belong together, or a transition that waits for a timer that never runs
            there or for a record that is none of the app's.
    """

    name: str
    boundaries: Sequence[Boundary]
    schemas: Path
    facts: Sequence[str] = ()
    fold: Fold | None = None
    spine: Literal["event-log", "state-machine"] = "event-log"
    effectors: Sequence[Effector] = ()
    machine: Machine | None = None

    def __post_init__(self) -> None:
        names = [boundary.name for boundary in self.boundaries]
        streams = [stream for boundary in self.boundaries for stream in boundary.on]
        for kind, values in (("name", names), ("event type", streams)):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise UsageError(f"app {self.name}: two boundaries with the {kind} {', '.join(sorted(twice))}")
        for name in names:
            if name.partition("/")[0] in RESERVED:
                raise UsageError(f"app {self.name}: a boundary is named {name}", f"{', '.join(RESERVED)} are taken")
        check_effectors(self.name, self.boundaries, self.effectors, answers=self.machine is not None)
        if (self.spine == "state-machine") != (self.machine is not None):
            raise UsageError(f"app {self.name}: the spine is {self.spine}", "give `machine` with state-machine alone")
        if self.machine is not None:
            self.machine.require_triggers(self.records)

    @cached_property
    def row_fold(self) -> Fold | None:
        """How events become rows: the app's fold, on the state-machine spine with the machine around it."""
        if self.machine is None:
            return self.fold
        inner = "" if self.fold is None else self.fold.version
        function = machine_fold(self.machine, None if self.fold is None else self.fold.function)
        return Fold(function, f"{self.machine.version}/{inner}", {} if self.fold is None else self.fold.upgrades)

    def require_machine(self) -> Machine:
        """The transition table.

        Raises:
            UsageError: The app has none.
        """
        if self.machine is None:
            raise UsageError(f"app {self.name} has the spine {self.spine}", "only a state machine has transitions")
        return self.machine

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
    def records(self) -> tuple[str, ...]:
        """Every record that tells its rows something: facts, what boundaries commit, what effectors report."""
        committed = [name for boundary in self.boundaries for name in boundary.proposes]
        reported = [name for effector in self.effectors for name in effector.results]
        return tuple(dict.fromkeys((*self.facts, *committed, *reported, ESCALATED)))

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
        return {b.name: BoundBoundary(b, b.chain(self.contracts, self.machine)) for b in self.boundaries}

    @cached_property
    def by_stream(self) -> dict[str, BoundBoundary]:
        """Boundaries with their judges, by the event types they decide."""
        return {stream: bound for bound in self.bound.values() for stream in bound.boundary.on}

    def subjects(self) -> list[tuple[str, str]]:
        """Every (topic, record) that the app writes or reads."""
        spine = () if self.row_fold is None else SPINE_RECORDS
        records = dict.fromkeys((*self.records, *spine))
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
