"""The doctor's look at all but Kafka: the registry, the clock, prices, the disk and the ledger."""

from __future__ import annotations

import os
import shutil
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

from driftline.console.doctor_findings import Checked, Finding, counted, fail, ok, warn
from driftline.consumers.models.gateway import OWN_PROVIDERS
from driftline.log.inspecting import LogInspector
from driftline.log.prepare import SHARED_SUBJECTS
from driftline.replay.plain import first_line
from driftline.replay.pricing import PriceMap
from driftline.schemas import ContractError, Contracts, DriftlineError, Registry
from driftline.schemas.names import DECISION
from driftline.schemas.registry import subject_name

CLOCK_TIMEOUT_S = 5.0
SKEW_S_WARN = 5.0
"""Beyond the whole second that an HTTP date is told in, and what a request takes."""
SKEW_S_FAIL = 60.0
"""A night would hold another day's decisions, and tokens and certificates would be refused."""
FREE_BYTES_WARN, FREE_BYTES_FAIL = 5 * 2**30, 2**29
GIB = 2**30
LEDGER = "ledger.sqlite"


def registry(checked: Checked) -> Iterator[Finding]:
    """Whether it answers, and its subjects hold the packaged schemas."""
    found = Registry(checked.settings.require_registry(), timeout_s=CLOCK_TIMEOUT_S, retries_max=0)
    there = set(found.subjects())
    missing: dict[str, list[str]] = {}
    held = 0
    for app, topic, record, contracts in _subjects(checked):
        if subject_name(topic, record) not in there:
            missing.setdefault(checked.setting_up(app), []).append(subject_name(topic, record))
            continue
        try:
            found.resolve(topic, contracts.require(record))
            held += 1
        except ContractError as error:
            yield fail(error.message, checked.setting_up(app))
    for mend, names in missing.items():
        yield fail(f"not registered: {counted(names, 'subject')}", mend)
    yield ok(f"{found.url} answers: {held} of our subjects, of {len(there)}, hold the packaged schemas")


def clock(checked: Checked, now: Callable[[], datetime]) -> Iterator[Finding]:
    """Our clock against the broker's; where that does not tell, against that of who answers for the registry."""
    whose, skew_s = _skew(checked, now)
    if skew_s is None:
        yield warn("nobody tells the time", "compare the clocks by hand, or let an operator run `driftline doctor`")
        return
    apart = f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} {whose}"
    mend = "let both machines follow a time server: `timedatectl set-ntp true`"
    if abs(skew_s) >= SKEW_S_FAIL:
        yield fail(f"this clock is {apart}: decisions would fall into another night", mend)
    elif abs(skew_s) >= SKEW_S_WARN:
        yield warn(f"this clock is {apart}", mend)
    else:
        yield ok(f"this clock and {whose} agree within {SKEW_S_WARN:g} s")


def prices(checked: Checked) -> Iterator[Finding]:
    """Whether every model that the apps ask has a price, and by which map."""
    apps = [app for app in checked.apps.values() if app is not None]
    asked = {model for app in apps for one in app.boundaries for model in (one.proposer, *one.fallbacks)}
    foreign = sorted(model for model in asked if model.partition("/")[0] not in OWN_PROVIDERS)
    if not foreign:
        yield ok(f"{_litellm()}; no price is needed for {', '.join(sorted(asked)) or 'no model'}")
        return
    known = PriceMap()
    unknown = [model for model in foreign if not known.of(model).known]
    if unknown:
        mend = "limit calls with --max-calls and --allow-unpriced: no budget in dollars can be held"
        yield warn(f"the price of {', '.join(unknown)} is unknown ({known.version})", mend)
    else:
        yield ok(f"every price is known ({known.version})")


def disk(checked: Checked) -> Iterator[Finding]:
    """Whether the home folder can be written, and has room."""
    home = checked.settings.home.absolute()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield fail(f"{there} cannot be written", "free it, or set DRIFTLINE_HOME to a folder of your own")
        return
    free = shutil.disk_usage(there).free
    told, mend = f"{home}: {free / GIB:.1f} GiB free", "make room, or set DRIFTLINE_HOME to a larger disk"
    if free < FREE_BYTES_FAIL:
        yield fail(told, mend)
    elif free < FREE_BYTES_WARN:
        yield warn(told, mend)
    else:
        yield ok(told)


def ledger(checked: Checked) -> Iterator[Finding]:
    """Whether SQLite finds the ledger sound; it is read, never written."""
    path = checked.settings.home / LEDGER
    if not path.exists():
        yield ok("there is no ledger yet: the first replay makes it")
        return
    mend = f"move {path} away and keep it: what it holds was paid for, and is asked and paid anew"
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            said = [str(row[0]) for row in db.execute("PRAGMA quick_check(3)")]
            answers = db.execute("SELECT count(*) FROM answers").fetchone()[0] if said == ["ok"] else 0
    except sqlite3.Error as error:
        yield fail(f"ledger {path}: {first_line(error)}", mend)
        return
    yield (
        ok(f"the ledger is sound: {answers:,} answers") if said == ["ok"] else fail(f"ledger {path}: {said[0]}", mend)
    )


def _subjects(checked: Checked) -> Iterator[tuple[str, str, str, Contracts]]:
    """App, topic, record and whose contract; no app for what all of them share."""
    own = Contracts.load()
    for (name, topics), app in zip(checked.topics(), checked.apps.values(), strict=True):
        if app is None:
            yield name, topics.decisions, DECISION, own
        else:
            for topic, record in app.subjects():
                yield name, topic, record, app.contracts
    for topic, record in SHARED_SUBJECTS:
        yield "", topic, record, own


def _skew(checked: Checked, now: Callable[[], datetime]) -> tuple[str, float | None]:
    """Whose clock, and how many seconds ours is ahead of it."""
    with suppress(DriftlineError):  # told where it is looked at
        told = LogInspector(checked.settings).clock(now)
        if told is not None:
            sent, appended, back = told
            return "the broker's", (sent + (back - sent) / 2 - appended).total_seconds()
    with suppress(DriftlineError):
        date = _date_of(checked.settings.require_registry())
        if date is not None:
            return "the registry's", (now() - date).total_seconds()
    return "", None


def _date_of(addresses: str) -> datetime | None:
    """What the first of the registry's addresses tells as the time, without credentials: a refusal has a date too."""
    parts = urlsplit(addresses.partition(",")[0])
    if parts.scheme not in ("http", "https"):
        return None
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    request = urllib.request.Request(where, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=CLOCK_TIMEOUT_S) as answer:
            told = answer.headers["Date"]
    except urllib.error.HTTPError as refusal:
        told = refusal.headers["Date"]
        refusal.close()
    except OSError:
        return None
    return None if told is None else parsedate_to_datetime(told)


def _litellm() -> str:
    try:
        return f"litellm {version('litellm')}"
    except PackageNotFoundError:
        return "litellm is not installed"
