"""`driftline kill`, `resume`, `throttle`, `control`: what every process of a running app obeys at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from driftline.consumers.app import App
    from driftline.consumers.control import Controls, ControlState, InForce
    from driftline.log import Settings
    from driftline.schemas.control import ControlSetting, Kill, SpineCut, Throttle

KILL_EXAMPLE = "Example: driftline kill renewals --reason 'discounts run away'"
RESUME_EXAMPLE = "Example: driftline resume renewals --reason 'the policy is mended'"
THROTTLE_EXAMPLE = "Example: driftline throttle renewals --decisions-per-minute 30 --in-flight 8"
CONTROL_EXAMPLE = "Example: driftline control renewals"

AppName = Annotated[str, typer.Argument(help="App in driftline.toml, or module:attribute.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for whoever reads the log.")]
By = Annotated[str | None, typer.Option("--by", help="Who; else the user's name on this machine.")]


def kill(
    app: AppName,
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever reads the log.", show_default=False)],
    by: By = None,
) -> None:
    """Let an app stand still, in every process of it: nothing is decided until `driftline resume`.

    Nothing is lost: events wait on the log. Decisions that are in flight may still be committed.
    """
    from driftline.schemas.control import Kill

    _set(app, Kill(killed=True), reason, by)


def resume(app: AppName, reason: Reason = "", by: By = None) -> None:
    """Let a killed app go on where it stopped; throttles stay as they are."""
    from driftline.schemas.control import Kill

    _set(app, Kill(killed=False), reason, by)


def throttle(
    app: AppName,
    decisions_per_minute: Annotated[
        float | None, typer.Option("--decisions-per-minute", help="Decisions a process may begin in a minute.")
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option("--in-flight", help="Decisions a process may have begun and not ended.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Lift both limits.")] = False,
    reason: Reason = "",
    by: By = None,
) -> None:
    """Limit every process of an app; a limit that is not named does not hold any longer."""
    from pydantic import ValidationError

    from driftline.schemas import UsageError
    from driftline.schemas.control import Throttle

    if off == (decisions_per_minute is not None or in_flight is not None):
        raise UsageError("name a limit, or lift both", THROTTLE_EXAMPLE.removeprefix("Example: ") + ", or --off")
    try:
        value = Throttle(decisions_per_minute=decisions_per_minute, in_flight_max=in_flight)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{first['loc'][0]}: {first['msg'].lower()}", "to stop an app: driftline kill") from None
    _set(app, value, reason, by)


def control(
    app: AppName,
    as_json: Annotated[bool, typer.Option("--json", help="Print as one JSON object.")] = False,
) -> None:
    """Show what is in force for an app, since when, and who said so; its spine where it was set."""
    from driftline.console.common import out, say
    from driftline.consumers.control import read_controls
    from driftline.log import KafkaReader, load_settings
    from driftline.schemas.control import KILL, SPINE, THROTTLE

    settings = load_settings()
    found = _controlled(app, settings)
    controls = read_controls(KafkaReader(settings), found.topics, _codec(settings))
    controls.require_known()
    if as_json:
        out.print_json(data=control_data(found.name, controls))
        return
    for name in (KILL, THROTTLE):
        held = controls.in_force.get(name)
        since = "" if held is None else _since(held.setting, str(held.at))
        say(f"{found.name}: {_what(name, controls.state)}{since}")
    cut, held = controls.state.spine, controls.in_force.get(SPINE)
    if cut is not None and held is not None:
        say(f"{found.name}: {_spine(found, cut)}{_since(held.setting, str(held.at))}")


def control_data(app: str, controls: Controls) -> dict[str, Any]:
    """What is in force as JSON data."""
    from dataclasses import asdict

    in_force = {name: _held_data(held) for name, held in controls.in_force.items()}
    spine = controls.state.spine
    state = asdict(controls.state) | {"spine": None if spine is None else spine.spine}
    return {"app": app, **state, "settings": in_force}


def _held_data(held: InForce) -> dict[str, Any]:
    from driftline.schemas import parse_json, to_json_data

    said = to_json_data(held.setting.model_dump(exclude={"setting"}))
    return {**said, "value": parse_json(held.setting.value), "offset": held.at.offset}


def _set(name: str, value: Kill | Throttle, reason: str, by: str | None) -> None:
    """Write one setting, and say what holds now."""
    from uuid import uuid4

    from driftline.console.common import now, say
    from driftline.consumers.control import ControlState, make_setting, write_setting
    from driftline.log import load_settings

    settings = load_settings()
    app = _controlled(name, settings)
    setting = make_setting(value, reason, by or _user(), now())
    at = write_setting(setting, app.topics, settings, _codec(settings), str(uuid4()))
    what = _what(setting.setting, ControlState(**value.model_dump()))
    say(f"{app.name}: {what}{_since(setting, str(at))}")


def _controlled(name: str, settings: Settings) -> App:
    """The app of a name, which must have code: only that runs.

    Raises:
        UsageError: It was imported.
        UnknownApp: There is none of that name.
    """
    from driftline.console.common import find_app, require_app
    from driftline.log import AppTopics, TopicAdmin
    from driftline.schemas import UsageError

    if find_app(name, settings) is None and AppTopics(name).decisions in TopicAdmin(settings).partitions():
        raise UsageError(
            f"{name!r} holds imported decisions and has no code: no process runs that could be controlled",
            "name an app of [apps] in driftline.toml",
        )
    return require_app(name, settings)


def _codec(settings: Settings) -> Any:
    from driftline.schemas import Codec, Contracts, Registry

    return Codec(Registry(settings.require_registry()), Contracts.load())


def _user() -> str:
    from getpass import getuser

    try:
        return getuser()
    except (OSError, KeyError):  # no such user in this container; Python 3.13 raises the former
        return "unknown"


def _what(name: str, state: ControlState) -> str:
    """What a setting's state means, in words."""
    from driftline.schemas.control import KILL

    if name == KILL:
        return "killed" if state.killed else "not killed"
    rate, in_flight = state.decisions_per_minute, state.in_flight_max
    limits = [
        *([] if rate is None else [f"{rate:g} decisions a minute"]),
        *([] if in_flight is None else [f"{in_flight} in flight"]),
    ]
    return f"at most {' and '.join(limits)} per process" if limits else "no throttle"


def _spine(app: App, cut: SpineCut) -> str:
    """Which spine the log has, and from where on where it was cut over."""
    from driftline.consumers.moved import cut_places
    from driftline.schemas.control import STATE_MACHINE

    places = cut_places(app.topics, cut) if cut.spine == STATE_MACHINE else ""  # one that was taken back has some too
    return f"on the {cut.spine} spine{places and f' from {places}'}"


def _since(setting: ControlSetting, at: str) -> str:
    from driftline.schemas.cloudevents import format_time

    reason = f": {' '.join(setting.reason.split())}" if setting.reason else ""
    return f", since {at} by {setting.by} at {format_time(setting.at)}{reason}"
