"""The control topic: the kill switch and the throttles of a running app, obeyed by every process of it.

`<app>.control` has one partition and is compacted; its key is the setting's name. Every process reads it whole,
outside of any group, before it decides anything, and then follows it. Of each setting the last record holds.

A record that says nothing readable (bytes that do not decode, an unknown setting, a value out of range, a record
without a value) is warned of in the log and changes nothing: it neither stops an app nor resumes one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from driftline.log import AppTopics, Coordinates, LogReader, Outgoing, Record, Settings, TransactionalWriter
from driftline.log.tail import TopicTail
from driftline.schemas import BadInput, Codec, Envelope, Undecodable, UsageError, canonical_json, parse_json
from driftline.schemas.cloudevents import epoch_ms, to_headers
from driftline.schemas.control import KILL, SPINE, THROTTLE, ControlSetting, Kill, SpineCut, Throttle
from driftline.schemas.names import CONTROL_SETTING

_log = logging.getLogger("driftline.control")

Value = Kill | Throttle | SpineCut

_VALUES: Mapping[str, type[Value]] = {KILL: Kill, THROTTLE: Throttle, SPINE: SpineCut}
_RESTATE = {
    KILL: "`driftline kill {0}` or `driftline resume {0}`",
    THROTTLE: "`driftline throttle {0}`",
    SPINE: "`driftline migrate cut-over MODULE:ATTRIBUTE`, which names its state machine",
}


@dataclass(frozen=True, slots=True)
class ControlState:
    """What is in force."""

    killed: bool = False
    """Whether the app stands still."""
    decisions_per_minute: float | None = None
    """Decisions that one process may begin in a minute; None is no limit."""
    in_flight_max: int | None = None
    """Decisions that one process may have begun and not ended; None is no limit."""
    offset: int | None = None
    """Of the last control record that was applied; None when there is none."""
    spine: SpineCut | None = None
    """Which spine the log has; None where nothing said so, and it is the event log."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A setting that holds, and where it was set."""

    setting: ControlSetting
    at: Coordinates


class Controls:
    """The settings of one app, made of its control records in offset order; the first of them is the oldest left.

    Args:
        app: App name, for messages.
        codec: Reads the records.
    """

    def __init__(self, app: str, codec: Codec) -> None:
        self.state = ControlState()
        self.in_force: dict[str, InForce] = {}
        """By the setting's name."""
        self._app = app
        self._codec = codec
        self._unreadable: dict[bytes | None, Coordinates] = {}

    def apply(self, record: Record) -> None:
        """Let a record take effect; one that says nothing readable is warned of and leaves everything as it was.

        Raises:
            RegistryUnreachable: Its schema is not known yet and the registry does not answer. Nothing was applied.
        """
        try:
            setting = self._read(record)
            value = _parse(setting)
        except (Undecodable, BadInput) as error:
            self._unreadable[record.key] = record.at
            _log.warning("%s cannot be obeyed, and what held before still holds: %s", record.at, error)
            return
        self._unreadable.pop(record.key, None)
        self.in_force[setting.setting] = InForce(setting, record.at)
        said: dict[str, Any] = {"spine": value} if isinstance(value, SpineCut) else value.model_dump()
        self.state = replace(self.state, **said, offset=record.at.offset)

    def require_known(self) -> None:
        """Prove that no setting is hidden: compaction drops the readable record below an unreadable one.

        Raises:
            UsageError: Of a setting nothing but an unreadable record is left, so what held is unknown. To go on as
                if nothing had been set might set a killed app going.
        """
        for name in _VALUES.keys() - self.in_force.keys():
            at = self._unreadable.get(name.encode())
            if at is not None:
                raise UsageError(
                    f"{at} cannot be read, and no earlier record of {name} is left: what holds is unknown",
                    f"set it anew with {_RESTATE[name].format(self._app)}",
                )

    def _read(self, record: Record) -> ControlSetting:
        decoded = self._codec.decode(record.value)
        if decoded.name != CONTROL_SETTING:
            raise BadInput(f"it is a {decoded.name}")
        try:
            setting = ControlSetting.model_validate(decoded.value)
        except ValidationError as error:
            raise BadInput(_first(error)) from error
        if record.key != setting.setting.encode():
            raise BadInput("its key is not the name of its setting")
        return setting


class ControlReader:
    """Follows the control topic of one app. Not for several threads.

    Args:
        settings: Where the log is.
        topics: Whose control topic.
        codec: Reads the records.
    """

    def __init__(self, settings: Settings, topics: AppTopics, codec: Codec) -> None:
        self._controls = Controls(topics.app, codec)
        self._tail = TopicTail(settings, topics.control)
        self._pending: deque[Record] = deque()

    @property
    def state(self) -> ControlState:
        """What was in force at the last look."""
        return self._controls.state

    def open(self) -> ControlState:
        """Read the topic whole, to its latest offset; what was set before this was called is in force after it.

        Raises:
            UsageError: There is no such topic, or what holds is unknown (`Controls.require_known`).
            EnvironmentUnreachable: A broker or the registry does not answer.
        """
        self._pending.extend(self._tail.open())
        state = self._apply()
        self._controls.require_known()
        return state

    def poll(self, timeout_s: float = 0.0) -> ControlState:
        """What is in force now; without a timeout it never waits, and costs a look into the client's queue.

        Not guaranteed: that what was set just now is seen already; a fetch of the client's lies between.

        Args:
            timeout_s: How long to wait for a record, for who has nothing else to do, as while the app is killed.

        Raises:
            EnvironmentUnreachable: A broker or, for a schema not seen before, the registry does not answer; the
                record is applied by the next poll.
        """
        self._pending.extend(self._tail.poll(0.0 if self._pending else timeout_s))
        return self._apply()

    def close(self) -> None:
        """Let the connection go."""
        self._tail.close()

    def _apply(self) -> ControlState:
        while self._pending:
            self._controls.apply(self._pending[0])
            self._pending.popleft()
        return self._controls.state


def read_controls(reader: LogReader, topics: AppTopics, codec: Codec) -> Controls:
    """What is in force for an app by now.

    Raises:
        UsageError: There is no control topic.
        EnvironmentUnreachable: A broker or the registry does not answer.
    """
    controls = Controls(topics.app, codec)
    for record in reader.read_to_latest(topics.control, 0):
        controls.apply(record)
    return controls


def make_setting(value: Value, reason: str, by: str, at: datetime) -> ControlSetting:
    """A setting as it is logged; it takes the place of the whole setting before it."""
    name = next(name for name, kind in _VALUES.items() if isinstance(value, kind))
    return ControlSetting(setting=name, value=canonical_json(value.model_dump()), reason=reason, by=by, at=at)


def control_record(setting: ControlSetting, topics: AppTopics, codec: Codec, id_: str) -> Outgoing:
    """The record of a setting, keyed by its name, so that compaction keeps the last of each.

    Raises:
        RegistryUnreachable: The schema id is not known yet and the registry does not answer.
    """
    envelope = Envelope(id_, CONTROL_SETTING, setting.by, setting.setting, setting.at)
    return Outgoing(
        topic=topics.control,
        key=setting.setting.encode(),
        value=codec.encode(topics.control, CONTROL_SETTING, setting.model_dump()),
        timestamp_ms=epoch_ms(setting.at),
        headers=to_headers(envelope),
        partition=0,
    )


def write_setting(
    setting: ControlSetting, topics: AppTopics, settings: Settings, codec: Codec, id_: str
) -> Coordinates:
    """Put a setting onto the control topic; where it lies.

    Args:
        setting: What is to hold from now on.
        topics: Whose.
        settings: Where the log is.
        codec: Encodes it.
        id_: Drawn for this one record. The transactional id is made of it, so that two people who set something at
            once do not fence each other, and it can be no app's slot.

    Raises:
        UsageError: There is no control topic, or the broker refuses.
        EnvironmentUnreachable: A broker or the registry does not answer; setting it again does no harm.
    """
    writer = TransactionalWriter(settings, f"driftline-control.{topics.app}.{id_}")
    try:
        (at,) = writer.commit([control_record(setting, topics, codec, id_)])
    finally:
        writer.close()
    return at


def _parse(setting: ControlSetting) -> Value:
    kind = _VALUES.get(setting.setting)
    if kind is None:
        raise BadInput(f"there is no setting {setting.setting!r}")
    try:
        return kind.model_validate(parse_json(setting.value))
    except ValidationError as error:
        raise BadInput(f"{setting.setting}: {_first(error)}") from error
    except ValueError as error:
        raise BadInput(f"{setting.setting}: its value is not JSON: {error}") from error


def _first(error: ValidationError) -> str:
    """The first fault, without the value that has it."""
    found = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
