"""`driftline doctor`: looks at everything that driftline rests on, and says what to mend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from driftline.console import doctor_kafka, doctor_nightly, doctor_place
from driftline.console.common import find_app, now
from driftline.console.doctor_findings import Checked, Finding, Status, fail
from driftline.log import Settings
from driftline.schemas import DriftlineError, EnvironmentUnreachable

__all__ = ["Finding", "Status", "examine", "exit_code", "findings_data"]

EXIT_FAILED = 1


class Area(StrEnum):
    """What is looked at, in this order."""

    APP = "app"
    BROKER = "broker"
    TOPICS = "topics"
    RIGHTS = "rights"
    REGISTRY = "registry"
    CLOCK = "clock"
    PRICES = "prices"
    NIGHTLY = "nightly"
    DISK = "disk"
    LEDGER = "ledger"


def examine(settings: Settings, names: Sequence[str], nightly: Path | None = None) -> Iterator[Finding]:
    """Look at everything; a finding as soon as it is known. What rests on what is not there is not looked at.

    Changes nothing that others read. To see whether a transactional id is allowed it opens one of its own,
    `driftline-replay.doctor` and `driftline.<app>.doctor`, which no process of an app has; to see the broker's clock
    it writes a record to its own topic `driftline.doctor`.

    Args:
        settings: Where everything is.
        names: Apps, as in `driftline.toml`, or imported ones.
        nightly: The file of `driftline nightly`; without one the nights are not looked at.
    """
    checked = Checked(settings, {})
    for name in names:
        yield from _asked(Area.APP, partial(_app, checked, name))
    broker = list(_asked(Area.BROKER, partial(doctor_kafka.broker, checked)))
    yield from broker
    if all(found.status is not Status.FAIL for found in broker):
        yield from _asked(Area.TOPICS, partial(doctor_kafka.topics, checked))
        yield from _asked(Area.RIGHTS, partial(doctor_kafka.rights, checked))
    yield from _asked(Area.REGISTRY, partial(doctor_place.registry, checked))
    yield from _asked(Area.CLOCK, partial(doctor_place.clock, checked, now))
    yield from _asked(Area.PRICES, partial(doctor_place.prices, checked))
    if nightly is not None:
        yield from _asked(Area.NIGHTLY, partial(doctor_nightly.nightly, checked, nightly))
    yield from _asked(Area.DISK, partial(doctor_place.disk, checked))
    yield from _asked(Area.LEDGER, partial(doctor_place.ledger, checked))


def exit_code(found: Sequence[Finding]) -> int:
    """0 when nothing fails; 3 where a broker or the registry does not answer; else 1."""
    if any(one.unreachable for one in found):
        return EnvironmentUnreachable.exit_code
    return EXIT_FAILED if any(one.status is Status.FAIL for one in found) else 0


def findings_data(found: Sequence[Finding]) -> dict[str, Any]:
    """The findings as JSON data."""
    rows = [{"area": one.area, "status": one.status, "what": one.what, "mend": one.mend} for one in found]
    return {"exit_code": exit_code(found), "findings": rows, "mend": to_mend(found)}


def to_mend(found: Sequence[Finding]) -> list[str]:
    """What to do, worst first, each once."""
    wanting = [one for status in (Status.FAIL, Status.WARN) for one in found if one.status is status]
    return list(dict.fromkeys(one.mend for one in wanting if one.mend))


def _asked(area: Area, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; one that cannot be made is a finding itself."""
    try:
        for one in check():
            yield Finding(one.status, one.what, one.mend, area, one.unreachable)
    except DriftlineError as error:
        unreachable = isinstance(error, EnvironmentUnreachable)
        yield Finding(Status.FAIL, error.message, error.mend, area, unreachable)


def _app(checked: Checked, name: str) -> Iterator[Finding]:
    found = find_app(name, checked.settings)
    if found is None:
        checked.apps[name] = None
        yield Finding(Status.OK, f"{name} is no code: it is looked at as an imported recording")
        return
    checked.apps[name] = found
    try:
        boundaries = ", ".join(found.bound)
    except DriftlineError as error:
        yield fail(f"{name}: {error.message}", error.mend)
    else:
        yield Finding(Status.OK, f"{name}: {found.spine}, boundaries {boundaries}")
