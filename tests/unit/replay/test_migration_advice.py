"""Migration advice: what is measured on a log in memory and read off runs on disk, and the page that tells it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.unit.replay.test_page_in_browser import visit

from driftline.log import ALERTS, Coordinates, MemoryLog, Outgoing
from driftline.replay.alerting import ReplayWriter, publish_alerts
from driftline.replay.confirmed import read_past_runs
from driftline.replay.migration import gather, migration_alert, migration_data
from driftline.replay.migration_page import render_migration
from driftline.replay.predicates import measure_state, measure_workflows
from driftline.replay.report import report_data
from driftline.replay.result import ForcedResult, Limits
from driftline.replay.store import write_store
from driftline.schemas import Codec, Contracts, Envelope, MigrationAlert, Registry, UsageError
from driftline.schemas.cloudevents import epoch_ms, from_headers, to_headers
from driftline.schemas.names import CLOCK_TICKED, DECISION

APP = "claims"
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
EVENTS, DECISIONS = f"{APP}.events", f"{APP}.decisions"
OFFER = f"driftline:{APP}/offer"


@dataclass
class Story:
    """A log that is written an event at a time, hours after noon."""

    log: MemoryLog = field(default_factory=lambda: MemoryLog(partitions=3))
    count: int = 0

    def fact(self, workflow: str, hours: float, stream: str = "claim-filed", **told: Any) -> str:
        """A fact; by default from outside. Its id."""
        self.count += 1
        told = {"source": "crm", "causation_id": None, **told}
        self._write(EVENTS, Envelope(f"e{self.count}", stream, subject=workflow, time=at(hours), **told))
        return f"e{self.count}"

    def decided(self, workflow: str, hours: float, stream: str = "claim-filed") -> str:
        """A fact from outside, its decision, and what the boundary commits."""
        asked = self.fact(workflow, hours, stream)
        self._write(DECISIONS, Envelope(f"d{self.count}", DECISION, OFFER, workflow, at(hours), asked))
        return self.fact(workflow, hours, "offered", source=OFFER, causation_id=asked)

    def _write(self, topic: str, envelope: Envelope) -> None:
        key = envelope.subject.encode()
        self.log.commit([Outgoing(topic, key, b"", epoch_ms(envelope.time), to_headers(envelope))])


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def waiting(story: Story, workflows: int = 30) -> None:
    """Workflows that are decided, wait five hours while something happens, and are decided again."""
    for number in range(workflows):
        story.decided(f"w{number}", 0)
        story.fact(f"w{number}", 2, "rate-changed")
        story.decided(f"w{number}", 5, "papers-came")


def stateless(story: Story, workflows: int = 30) -> None:
    """One event, one decision, and no more."""
    for number in range(workflows):
        story.decided(f"w{number}", number)


def a_free_run(runs: Path, model: str = "acme/last", differing: int = 24, workflows: int = 30) -> None:
    """What a run in mode `free` of the incumbent against itself leaves."""
    share = differing / workflows
    interval = [share - 0.2, share + 0.2]
    first = {"input": f"{EVENTS}[0]@0", "at": f"{DECISIONS}[0]@0"}
    report = {
        "run_id": "free-1",
        "app": APP,
        "baseline": "acme/last",
        "candidate": model,
        "levels": {"state": {"mismatch": share, "events": workflows, "interval": interval}},
        "arms": {"incumbent": {"state_changed": {"workflows": 40, "count": 10, "interval": [0.12, 0.4]}}},
        "departures": [{"first": first, "state_equal": False}, {"first": {"input": "x"}, "state_equal": True}],
    }
    (runs / "free-1").mkdir(parents=True)
    (runs / "free-1" / "free.json").write_text(json.dumps(report))


def a_run(runs: Path, run_id: str, candidate: str, day: int, **changed: Any) -> Path:
    """A run on disk, with as much of a store as advice reads, and its diagnosis."""
    change = {"verdict": "diverged", "levels": {"verdict": {"change": -0.3, "interval": [-0.4, -0.2]}}}
    report = {
        "run_id": run_id,
        "app": APP,
        "mode": "forced",
        "baseline": "acme/last",
        "candidate": candidate,
        "verdict": "diverged",
        "alpha": 0.05,
        "delta": 0.05,
        "levels": {"verdict": {"change": -0.3, "interval": [-0.4, -0.2]}},
        "noise_floor": None,
        "attribution": {
            "cause": "model",
            "why": "the candidate answers otherwise",
            "contrasts": {"environment": {"verdict": "inconclusive"}, "candidate": change},
        },
        **changed,
    }
    folder = runs / run_id
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "replay.duckdb")) as db:
        db.execute("CREATE TABLE run (report JSON, completed_at TIMESTAMP, baseline_prompt_hash TEXT)")
        db.execute("ALTER TABLE run ADD COLUMN candidate_prompt_hash TEXT")
        db.execute("INSERT INTO run VALUES (?, '2026-06-01', 'p', 'p')", [json.dumps(report)])
        db.execute("CREATE TABLE pairs (event_time TIMESTAMP, coordinates TEXT)")
        for offset in range(3):
            time = NOON.replace(tzinfo=None) + timedelta(days=day, hours=offset)
            db.execute("INSERT INTO pairs VALUES (?, ?)", [time, f"{DECISIONS}[0]@{10 * day + offset}"])
    diagnosis = {"run_id": run_id, "conclusion": "candidate", "e_value": 31.0, "interval": [0.2, 0.6]}
    (folder / "diagnosis.json").write_text(json.dumps(diagnosis))
    return folder


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two confirmed runs over two windows, and the free run of the incumbent against itself."""
    a_free_run(tmp_path / "runs")
    a_run(tmp_path / "runs", "one", "acme/next", day=0)
    a_run(tmp_path / "runs", "two", "acme/other", day=9)
    return tmp_path / "runs"


def event_at(log: MemoryLog, coordinates: str) -> Envelope:
    record = log.read_one(Coordinates.parse(coordinates))
    assert record is not None
    return from_headers(record.headers)


def test_a_pause_is_measured_with_the_records_around_it(story: Story) -> None:
    waiting(story)
    pauses = measure_workflows(story.log, APP).pauses
    assert (pauses.count, pauses.workflows, pauses.predicate.measure) == (30, 30, 1.0)
    assert pauses.predicate.holds
    assert pauses.longest_s == 3 * 3600
    before, after = (event_at(story.log, at) for at in pauses.examples[:2])
    assert (before.subject, after.time - before.time) == (after.subject, timedelta(hours=3))


def test_what_lands_while_a_workflow_waits_is_found_where_it_lies(story: Story) -> None:
    waiting(story)
    kind = measure_workflows(story.log, APP)
    assert (kind.world.count, kind.world.predicate.holds) == (30, True)
    assert {event_at(story.log, at).type for at in kind.world.examples} == {"rate-changed"}
    assert (kind.boundaries, kind.streams) == (("offer",), ("claim-filed", "papers-came"))


def test_workflows_of_one_event_neither_pause_nor_wait(story: Story) -> None:
    stateless(story)
    kind = measure_workflows(story.log, APP)
    assert [one.predicate.measure for one in (kind.pauses, kind.world)] == [0.0, 0.0]
    assert kind.pauses.predicate.refuted
    assert kind.pauses.examples == ()


def test_a_gap_of_an_hour_sharp_is_no_pause(story: Story) -> None:
    story.decided("w", 0)
    story.decided("w", 1)
    assert measure_workflows(story.log, APP).pauses.count == 0


def test_a_gap_is_one_of_event_time_whatever_the_order_on_the_log(story: Story) -> None:
    """A fact that comes late lies behind what came after it."""
    story.decided("w", 0)
    story.decided("w", 1.5)
    story.fact("w", 0.75, "rate-changed")
    kind = measure_workflows(story.log, APP)
    assert (kind.pauses.count, kind.world.count) == (0, 1)


@pytest.mark.parametrize(
    "told",
    [
        {"source": f"driftline:{APP}/effector/crm"},
        {"source": OFFER},
        {"source": "crm", "causation_id": "e2"},
        {"stream": CLOCK_TICKED},
    ],
    ids=["an effector's report", "a boundary's event", "what a boundary's event caused", "a tick of the clock"],
)
def test_only_a_fact_from_outside_is_news_of_the_world(story: Story, told: Mapping[str, Any]) -> None:
    story.decided("w", 0)
    assert story.count == 2
    story.fact("w", 2, **told)
    story.decided("w", 5)
    assert measure_workflows(story.log, APP).world.count == 0


def test_a_fact_that_is_decided_itself_is_what_the_workflow_waited_for(story: Story) -> None:
    story.decided("w", 0)
    story.decided("w", 5)
    assert measure_workflows(story.log, APP).world.count == 0


def test_a_fact_about_another_workflow_lands_in_no_pause_of_this_one(story: Story) -> None:
    story.decided("w", 0)
    story.fact("v", 2)
    story.decided("w", 5)
    kind = measure_workflows(story.log, APP)
    assert (kind.world.count, kind.workflows) == (0, 1), (
        "and where nothing was decided there is no workflow of the app"
    )


def test_records_that_are_no_events_are_counted_and_passed_over(story: Story) -> None:
    story.decided("w", 0)
    story.log.commit([Outgoing(EVENTS, b"w", b"junk", 1), Outgoing(EVENTS, b"\xff", b"junk", 1)])
    kind = measure_workflows(story.log, APP)
    assert (kind.unreadable, kind.workflows) == (2, 1)


def test_an_empty_log_measures_nothing(story: Story) -> None:
    kind = measure_workflows(story.log, APP)
    assert kind.pauses.predicate.measure is None
    assert "no workflow" in kind.pauses.predicate.missing


def test_state_is_best_known_from_the_incumbent_against_itself(tmp_path: Path) -> None:
    a_free_run(tmp_path)
    state = measure_state(tmp_path, APP)
    assert (state.count, state.workflows) == (24, 30)
    assert state.predicate.interval == pytest.approx((0.6, 1.0))
    assert state.examples == (f"{EVENTS}[0]@0",)


def test_state_is_known_from_the_incumbent_arm_beside_any_candidate(tmp_path: Path) -> None:
    a_free_run(tmp_path, model="acme/next")
    state = measure_state(tmp_path, APP)
    assert (state.count, state.workflows, state.predicate.measure) == (10, 40, 0.25)


@pytest.mark.parametrize("app", ["others", APP])
def test_without_a_free_run_of_the_app_the_command_that_measures_is_named(tmp_path: Path, app: str) -> None:
    if app != APP:
        a_free_run(tmp_path)
    state = measure_state(tmp_path, "claims" if app == APP else app)
    assert state.predicate.measure is None
    assert "--mode free" in state.predicate.missing


def test_a_run_is_read_with_its_window_offsets_contrasts_and_diagnosis(runs: Path) -> None:
    past = read_past_runs(runs, APP)
    one, two = (run.evidence for run in past.runs)
    assert (one.window, two.window[0]) == ((NOON, NOON + timedelta(hours=2)), NOON + timedelta(days=9))
    assert (one.offsets, two.offsets) == (((DECISIONS, 0, 0, 2),), ((DECISIONS, 0, 90, 92),))
    assert (one.environment, one.change, one.diagnosis_e_value) == ("inconclusive", "diverged", 31.0)
    assert [(effect.level, effect.against) for effect in one.effects] == [
        ("verdict", "incumbent"),
        ("verdict", "log"),
    ]


def test_a_run_without_attribution_or_diagnosis_shows_nothing(tmp_path: Path) -> None:
    folder = a_run(tmp_path, "one", "acme/next", day=0, attribution=None)
    (folder / "diagnosis.json").unlink()
    (run,) = read_past_runs(tmp_path, APP).runs
    assert (run.evidence.environment, run.evidence.change, run.evidence.diagnosis) == (None, None, None)


def test_a_diagnosis_of_another_run_counts_for_nothing(tmp_path: Path) -> None:
    folder = a_run(tmp_path, "one", "acme/next", day=0)
    told = json.loads((folder / "diagnosis.json").read_text())
    (folder / "diagnosis.json").write_text(json.dumps({**told, "run_id": "yesterday"}))
    (run,) = read_past_runs(tmp_path, APP).runs
    assert run.evidence.diagnosis is None


def test_where_the_environment_moved_the_log_measures_no_candidate(tmp_path: Path) -> None:
    moved = {"environment": {"verdict": "diverged"}, "candidate": {"verdict": "inconclusive"}}
    a_run(tmp_path, "one", "acme/next", day=0, attribution={"cause": "environment", "why": "", "contrasts": moved})
    (run,) = read_past_runs(tmp_path, APP).runs
    assert run.evidence.effects == ()


def stratum(stream: str, change: float, **told: Any) -> dict[str, Any]:
    interval = [change - 0.1, change + 0.1]
    where = {"boundary": "offer", "stream": stream, "level": "verdict", "named": True}
    return {**where, "change": change, "interval": interval, **told}


def test_strata_that_cancel_confirm_by_those_that_are_named(tmp_path: Path) -> None:
    still = {"verdict": {"change": 0.0, "interval": [-0.04, 0.04]}}
    change = {"verdict": "diverged", "levels": still}
    strata = [
        stratum("two-year", -0.3),
        stratum("one-year", 0.3),
        stratum("monthly", -0.9, named=False),
        stratum("two-year", -0.3, level="action"),
        stratum("two-year", 0.0, level="state", noise={"excess": 0.3, "excess_interval": [0.2, 0.4]}),
    ]
    contrasts = {"environment": {"verdict": "equivalent"}, "candidate": change}
    a_run(tmp_path, "one", "acme/next", 0, levels=still, strata=strata, attribution={"contrasts": contrasts})
    (run,) = read_past_runs(tmp_path, APP).runs
    named = [(one.level, one.against, one.change) for one in run.evidence.effects[2:]]
    assert named == [
        ("verdict of offer/two-year", "log", -0.3),
        ("verdict of offer/one-year", "log", 0.3),
        ("state of offer/two-year", "log", 0.3),
    ]
    assert run.evidence.cleared is run.evidence.effects[2]


def test_where_the_environment_moved_no_stratum_of_the_log_measures_the_candidate(tmp_path: Path) -> None:
    moved = {"environment": {"verdict": "diverged"}, "candidate": None}
    a_run(tmp_path, "one", "acme/next", 0, strata=[stratum("two-year", -0.3)], attribution={"contrasts": moved})
    (run,) = read_past_runs(tmp_path, APP).runs
    assert run.evidence.effects == ()


@pytest.mark.parametrize(("events", "early"), [(53, True), (240, False)])
def test_a_run_that_read_no_further_than_its_alarm_stopped_early(events: int, early: bool, tmp_path: Path) -> None:
    a_run(tmp_path, "one", "acme/next", 0, stopped_because="alarm", events=events, events_at_stop=53)
    (run,) = read_past_runs(tmp_path, APP).runs
    assert run.evidence.stopped_early is early


def test_candidates_of_one_model_are_told_apart_by_prompt_and_parameters(tmp_path: Path) -> None:
    prompt = {"prompt": "v2.md", "prompt_hash": "1a2b3c4d5e6f", "parameters": {}}
    warm = {"prompt": None, "prompt_hash": None, "parameters": {"temperature": 0.2}}
    a_run(tmp_path, "one", "acme/next", 0, tried=prompt)
    a_run(tmp_path, "two", "acme/next", 1, tried=warm)
    one, two = (run.evidence for run in read_past_runs(tmp_path, APP).runs)
    assert one.candidate == "acme/next (prompt v2.md#1a2b3c4d)"
    assert two.candidate == "acme/next (temperature=0.2)"
    assert one.tried != two.tried


@pytest.mark.parametrize("level", ["levels", "noise_floor"])
def test_text_alone_that_moved_beyond_the_floor_is_form(tmp_path: Path, level: str) -> None:
    noise = {"excess": 0.4, "excess_interval": [0.2, 0.6]}
    told = {"levels": {"bytes": {"noise": noise}}, "noise_floor": {"levels": {"bytes": noise}}}
    a_run(tmp_path, "one", "acme/next", day=0, verdict="inconclusive", **{"levels": {}, level: told[level]})
    (run,) = read_past_runs(tmp_path, APP).runs
    assert run.evidence.form_only


def test_a_store_that_is_damaged_or_of_another_app_is_no_evidence(runs: Path) -> None:
    a_run(runs, "three", "acme/next", day=20, app="others")
    (runs / "four").mkdir()
    (runs / "four" / "replay.duckdb").write_bytes(b"no database")
    past = read_past_runs(runs, APP)
    assert ([run.evidence.run_id for run in past.runs], past.unreadable) == (["one", "two"], ("four",))


def test_a_run_that_replay_stored_is_read(tmp_path: Path, wild: ForcedResult) -> None:
    report = report_data("quiz", "acme/last", "acme/next", wild, Limits())
    write_store(tmp_path / "run", wild, {**report, "report": report})
    (run,) = read_past_runs(tmp_path, "quiz").runs
    assert run.evidence.verdict == "diverged"
    assert run.evidence.offsets[0][2:] == (0, 59)
    assert run.evidence.cleared is not None
    assert any(" of " in effect.level for effect in run.evidence.effects)


def test_all_evidence_together_advises_and_says_on_what_it_rests(story: Story, runs: Path) -> None:
    waiting(story)
    found = gather(story.log, runs, APP)
    assert (found.advice.conclusion, found.exit_code) == ("migrate", 1)
    alert = migration_alert(found, NOON)
    assert alert is not None
    assert [run.run_id for run in alert.runs] == ["one", "two"]
    assert [one.name for one in alert.predicates] == ["pauses", "state_not_reconstructible", "world_moves_on"]
    assert alert.runs[1].offsets == (f"{DECISIONS}[0]@90-92",)
    assert "keep acme/last" in alert.advice


def test_the_same_of_stateless_workflows_advises_nothing(story: Story, runs: Path) -> None:
    stateless(story)
    found = gather(story.log, runs, APP, incumbent_ends_at=NOON)
    assert (found.advice.conclusion, found.exit_code) == ("gate", 0)
    assert migration_alert(found, NOON) is None


def test_what_is_missing_ends_with_exit_code_4(story: Story, runs: Path) -> None:
    waiting(story)
    shutil.rmtree(runs / "free-1")
    found = gather(story.log, runs, APP)
    assert (found.advice.conclusion, found.exit_code) == ("pin", 4)


def test_an_advice_is_published_once_however_the_log_grows(story: Story, runs: Path) -> None:
    waiting(story)
    contracts, registry = Contracts.load(), Registry("mock://migration")
    registry.ensure(ALERTS, contracts.require("driftline.MigrationAlert"))
    codec, writer = Codec(registry, contracts), ReplayWriter(story.log)
    told = []
    for _ in range(2):
        alert = migration_alert(gather(story.log, runs, APP), NOON)
        assert alert is not None
        told.append((publish_alerts(writer, story.log, codec, [alert])[0], alert.run_id))
        waiting(story, workflows=3)
    assert told[0] == told[1]
    (record,) = story.log.read(story.log.span(ALERTS))
    assert MigrationAlert.model_validate(codec.decode(record.value).value).run_id == told[0][1]


def test_another_run_that_it_rests_on_is_another_advice(story: Story, runs: Path) -> None:
    waiting(story)
    before = gather(story.log, runs, APP)
    a_run(runs, "zero", "acme/other", day=-9)
    assert gather(story.log, runs, APP).run_id != before.run_id
    assert replace(before, app="others").run_id != before.run_id


def pages(story: Story, runs: Path) -> Sequence[str]:
    waiting(story)
    advised = migration_data(gather(story.log, runs, APP))
    shutil.rmtree(runs)
    return render_migration(advised), render_migration(migration_data(gather(story.log, runs, APP)))


def test_the_page_shows_why_and_what_is_missing(story: Story, runs: Path) -> None:
    advised, unknown = pages(story, runs)
    for text in (
        "acme/other",
        "[-40.0, -20.0]",
        "threshold 5.0%",
        f"<code>{EVENTS}[0]@",
        "3.0 hours",
        "free run free-1",
    ):
        assert text in advised
    assert "What would have to be shown" not in advised
    assert "What would have to be shown" in unknown
    assert "--mode free" in unknown


def test_what_stands_on_the_log_is_text_on_the_page(story: Story, tmp_path: Path) -> None:
    waiting(story)
    a_run(tmp_path / "runs", "one", "<script>alert(1)</script>", day=0)
    page = render_migration(migration_data(gather(story.log, tmp_path / "runs", APP)))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt-get install chromium)")
def test_the_page_asks_a_browser_for_nothing_and_complains_of_nothing(
    story: Story, runs: Path, tmp_path: Path
) -> None:
    advised, _ = pages(story, runs)
    seen = visit(advised, tmp_path)
    assert (seen.console, seen.asked) == ([], set())
    assert "<h2>What the replays showed</h2>" in seen.document


def test_an_app_without_topics_is_refused(story: Story, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name an app"):
        gather(story.log, tmp_path, "No App")
