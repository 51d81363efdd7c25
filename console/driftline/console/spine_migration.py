"""`driftline migrate plan | seed | check | cut-over`: the way of an app from the event log to the state machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftline.console import replay_options as options
from driftline.console.migrate_command import migrate_app
from driftline.console.spine_commands import By

__all__ = ["migrate_app"]

if TYPE_CHECKING:
    from driftline.console.common import Log
    from driftline.consumers.app import App
    from driftline.consumers.cutting_over import CutOver
    from driftline.consumers.moved import Moved
    from driftline.consumers.seeding import SeededPartition
    from driftline.replay.mined import Mined
    from driftline.replay.spine_check import SpineCheck

PLAN_EXAMPLE = "Example: driftline migrate plan renewals --out machine.py"
SEED_EXAMPLE = "Example: driftline migrate seed myapp.machine:app --check"
CHECK_EXAMPLE = "Example: driftline migrate check myapp.machine:app --from 7d"
CUT_OVER_EXAMPLE = "Example: driftline migrate cut-over myapp.machine:app --by mara@example.com"
EXIT_DIFFERS = 1

MachineApp = Annotated[
    str, typer.Argument(help="The app with its transition table: a name in driftline.toml, or module:attribute.")
]
Ends = Annotated[
    list[str] | None,
    typer.Option("--offsets", help="PARTITION:OFFSET, the first that is not in the rows; of some partitions or all."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@migrate_app.command("plan", epilog=PLAN_EXAMPLE)
def plan(
    app: Annotated[str, typer.Argument(help="App on the event log: a name in driftline.toml, or module:attribute.")],
    file: Annotated[Path | None, typer.Option("--out", help="Write the transition table as a Python file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Mine the transitions that an app's workflows went through, and propose a transition table to edit."""
    from driftline.console.common import Log, out, progress_bar, require_app, say
    from driftline.console.outputs import write_text
    from driftline.consumers.moved import moved_log
    from driftline.log import load_settings
    from driftline.replay.mining import mine, table_of
    from driftline.schemas import UsageError

    settings = load_settings()
    found = require_app(app, settings)
    log = Log(settings, found.contracts)
    moved = moved_log(log.reader, found.topics, log.codec)
    if moved is not None:
        raise UsageError(f"{moved}: there is nothing to plan", "`driftline state diagram` draws the app's table")
    with progress_bar("reading the events", None):
        mined = mine(log.reader, log.codec, found)
    if file is not None:
        write_text(file, table_of(mined))
    if as_json:
        out.print_json(data=_mined_data(mined))
        return
    _print_mined(mined)
    say(f"written: {file}" if file is not None else "\n" + table_of(mined))


@migrate_app.command("seed", epilog=SEED_EXAMPLE)
def seed(
    app: MachineApp,
    offsets: Ends = None,
    check: Annotated[bool, typer.Option("--check", help="Compare with the rows of the cut-over; exit 1.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build the rows of an app from its event log, and show what they come to. Nothing is written.

    Up to where the app stands, which must have stopped; of a log that was cut over, up to the cut-over, whatever came
    after it; with --offsets, up to there. The same log gives the same hash, which `cut-over` records. With --check
    the hash is held against the recorded one, and each row against the one on the state topic, where it has not moved
    since: before the cut-over there is nothing to hold them against.
    """
    from driftline.console.common import out, say
    from driftline.consumers.cutting_over import rows_hash
    from driftline.consumers.moved import moved_log

    loaded, log, cut = _open(app)
    moved = moved_log(log.reader, loaded.topics, log.codec)
    recorded = _recorded(loaded, moved, _ends(offsets or [])) if check else None
    seeded = list(_seeded(loaded, log, cut, moved, _ends(offsets or [])))
    differing = [key for one in seeded for key in _differing(cut, one)] if check else []
    states: dict[str, int] = {}
    for one in seeded:
        for _, row in one.rows.items():
            states[row.state or ""] = states.get(row.state or "", 0) + 1
    data = {
        "app": loaded.name,
        "workflows": sum(len(one.rows) for one in seeded),
        "offsets": {str(one.partition): one.offset for one in seeded},
        "states": states,
        "hash": rows_hash(seeded),
        "recorded_hash": recorded,
        "differing": [key.decode(errors="replace") for key in differing] if check else None,
    }
    if as_json:
        out.print_json(data=data)
    else:
        told = ", ".join(f"{count} {state}" for state, count in sorted(states.items(), key=lambda item: -item[1]))
        say(f"{loaded.name}: {data['workflows']} rows as of {data['offsets']}: {told}")
        say(f"hash {data['hash']}")
        if check:
            say(f"the cut-over recorded {'the same' if recorded == data['hash'] else recorded}")
            say(f"{len(differing)} rows on the state topic are neither these nor later ones")
    if check and (differing or recorded != data["hash"]):
        raise typer.Exit(EXIT_DIFFERS)


@migrate_app.command("check", epilog=CHECK_EXAMPLE)
def check(
    app: MachineApp,
    start: options.From = None,
    stop: options.To = None,
    key: options.Keys = None,
    sample: options.Sample = None,
    as_json: AsJson = False,
) -> None:
    """Run the event log's decisions past the state machine, one by one, and say where it takes them otherwise.

    No model is asked. Of a log that was cut over, what lies below the cut-over. Exits 0 where all are taken as they
    were, 1 where any is not.
    """
    from driftline.console.common import out, progress_bar, say
    from driftline.consumers.moved import EndingReader, moved_log
    from driftline.replay.spine_check import check_data, check_spines

    loaded, log, _ = _open(app)
    moved = moved_log(log.reader, loaded.topics, log.codec)
    if moved is not None:
        moved.require_event_log()
    reader = log.reader if moved is None else EndingReader(log.reader, loaded.topics.events, moved.ends)
    with progress_bar("walking the workflows", None):
        selection = options.selection_of(start, stop, keys=key or [], sample=sample)
        result = check_spines(reader, log.codec, loaded, selection)
    if as_json:
        out.print_json(data={**check_data(loaded.name, result), "until": moved and moved.cut.offsets})
    else:
        if moved is not None:
            say(f"{moved}: checked up to there")
        _print_check(loaded.name, result)
    if result.verdict != "equivalent":
        raise typer.Exit(EXIT_DIFFERS)


@migrate_app.command("cut-over", epilog=CUT_OVER_EXAMPLE)
def cut_over(app: MachineApp, by: By) -> None:
    """Switch a stopped app to the state machine, at the offset where it stands; once, however often it is said.

    Write the rows, then the switch on the control topic. From then on only the app with its transition table starts.
    """
    from driftline.console.common import now, say
    from driftline.consumers.cutting_over import cut_since

    loaded, _, cut = _open(app)
    before = cut.done()
    done = cut.run(by, now())
    since = f"on the state-machine spine {cut_since(loaded, done)}"
    if not done.offsets:
        say(f"{loaded.name} is {since}: there is nothing to cut over")
    elif before is not None:
        say(f"{loaded.name} is already {since}, and nothing was written; it began with rows {done.rows_hash}")
    else:
        say(f"{loaded.name} is {since}; rows {done.rows_hash}")


def _open(name: str) -> tuple[App, Log, CutOver]:
    from driftline.console.common import Log, require_app
    from driftline.consumers.cutting_over import CutOver
    from driftline.log import load_settings

    settings = load_settings()
    app = require_app(name, settings)
    log = Log(settings, app.contracts)
    return app, log, CutOver(app, settings, log.codec)


def _seeded(
    app: App, log: Log, cut: CutOver, moved: Moved | None, given: Mapping[int, int]
) -> Iterator[SeededPartition]:
    """The rows of each partition up to the offset that is given of it, else to where its event log ends."""
    from driftline.consumers.seeding import seed_up_to

    if moved is not None:
        moved.require_event_log()
        _require_below(app, given, moved.ends, "the log was cut over")
        for partition, until in sorted((moved.ends | dict(given)).items()):
            yield seed_up_to(app, log.reader, log.codec, partition, until)
        return
    stands = {one.partition: one for one in cut.seed()}
    _require_below(app, given, {partition: one.offset for partition, one in stands.items()}, "the app stands")
    for partition, one in stands.items():
        end = given.get(partition)
        yield one if end is None else seed_up_to(app, log.reader, log.codec, partition, end)


def _require_below(app: App, given: Mapping[int, int], ends: Mapping[int, int], where: str) -> None:
    """Prove that the event log decided everything below the offsets."""
    from driftline.schemas import UsageError

    for partition, offset in given.items():
        if partition not in ends:
            raise UsageError(f"there is no partition {partition} of {app.topics.events}", f"it has {sorted(ends)}")
        if offset > ends[partition]:
            raise UsageError(
                f"--offsets {partition}:{offset} lies above {ends[partition]}, where {where} in "
                f"{app.topics.events}[{partition}]",
                "no event log made the rows there; give a lower one",
            )


def _recorded(app: App, moved: Moved | None, given: Mapping[int, int]) -> str:
    """The hash of the rows that the cut-over recorded, if it is of those that are to be built."""
    from driftline.consumers.cutting_over import require_same_spine
    from driftline.schemas import UsageError

    if moved is None:
        raise UsageError(
            f"the log of {app.name} is an event log: {app.topics.state} holds no rows of a state machine yet",
            "leave --check out; after `driftline migrate cut-over` it compares",
        )
    moved.require_event_log()
    require_same_spine(app, moved.cut)
    version = "" if app.row_fold is None else app.row_fold.version
    if version != moved.cut.rows_version:
        raise UsageError(
            f"the log of {app.name} was cut over with rows of version {moved.cut.rows_version}, and this app's are "
            f"of version {version}",
            "give the app as it was cut over",
        )
    if moved.ends | dict(given) != moved.ends:
        what = "--check compares with the rows of the cut-over, which are those of its own offsets"
        raise UsageError(what, "leave --offsets out")
    return moved.cut.rows_hash


def _ends(texts: Sequence[str]) -> dict[int, int]:
    import re

    from driftline.schemas import BadInput

    found: dict[int, int] = {}
    for text in texts:
        parts = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,18})", text)
        if parts is None:
            raise BadInput(f"--offsets {text!r} is not PARTITION:OFFSET", "for example --offsets 0:250")
        partition = int(parts[1])
        if partition in found:
            raise BadInput(f"--offsets names partition {partition} twice", "give one offset a partition")
        found[partition] = int(parts[2])
    return found


def _differing(cut: CutOver, seeded: SeededPartition) -> list[bytes]:
    from driftline.consumers.seeding import lost_or_changed

    return lost_or_changed(seeded, cut.stored(seeded.partition))


def _mined_data(mined: Mined) -> dict[str, Any]:
    from dataclasses import asdict

    more = {"states": mined.states, "terminal": mined.terminal, "cycles": mined.cycles, "to_edit": mined.to_edit}
    left_out = [{**asdict(edge), "why": why} for edge, why in mined.left_out.items()]
    return {**asdict(mined), **more, "unfinished": [asdict(end) for end in mined.unfinished], "left_out": left_out}


def _print_mined(mined: Mined) -> None:
    from driftline.console.common import say

    say(f"{mined.app}: {mined.workflows} workflows, {mined.events} events, {len(mined.states)} states", "bold")
    for edge in mined.edges:
        why = mined.left_out.get(edge)
        told = f"  {edge.source} → {edge.target}: {edge.on}, {edge.times} times, by {edge.share:.1%} of the workflows"
        say(told if why is None else f"{told}; left out: {why}", "" if why is None else "yellow")
    for group in mined.ambiguous:
        targets = " or ".join(edge.target for edge in group)
        say(f"  {group[0].on} leads from {group[0].source} to {targets}: a table has room for one", "yellow")
    for cycle in mined.cycles:
        say(f"  cycle: {' → '.join([*cycle, cycle[0]])}", "yellow")
    for end in mined.unfinished:
        say(f"  {end.workflows} workflows stand in {end.state}, which others left; first {end.example}", "yellow")
    if mined.unreadable:
        say(f"  {mined.unreadable} records could not be read", "yellow")
    for one in mined.to_edit:
        say(f"  to edit: {one}", "bold yellow")


def _print_check(name: str, result: SpineCheck) -> None:
    from driftline.console.common import say

    say(f"{result.verdict.upper()}  {name}: {result.agree} of {result.decisions} decisions are taken as they were")
    for one in result.differences:
        say(
            f"  {one.decisions} × {one.boundary}/{one.stream} in {one.state}: the log has {one.proposed}; "
            f"{one.why}, legal is {one.expected}; at {', '.join(one.examples)}"
        )
    told = ", ".join(f"{count} {state}" for state, count in result.states.items())
    say(f"  the machine leaves the workflows in: {told}")
