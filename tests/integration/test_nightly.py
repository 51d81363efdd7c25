"""`driftline nightly` on the real broker: a night counts once, its evidence goes on, and `kill -9` loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace as changed
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.integration.provider import Provider, serving

from driftline.console.nightly import NightDone, run_nightly
from driftline.console.nightly_config import load_config
from driftline.console.nightly_output import exit_code, summary_data, summary_lines, summary_markdown
from driftline.consumers import App
from driftline.consumers.prepare import prepare
from driftline.consumers.runtime import Runtime
from driftline.examples.renewals.app import app as renewals
from driftline.log import ALERTS, KafkaReader, Record, Settings, Span
from driftline.log.records import Probe
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.replay.nights_kept import KEPT, NightsFolder
from driftline.replay.testing import OwnModels
from driftline.schemas import UsageError

pytestmark = pytest.mark.integration

NAME = "nightly"
FIRST, SECOND, EMPTY, LAST = (date(2026, 10, day) for day in (1, 2, 3, 4))
A_NIGHT = 60
DRIFTLINE = Path(sys.executable).with_name("driftline")
MODULE = """
from dataclasses import replace
from driftline.examples.renewals.app import app as renewals
app = replace(renewals, name={name!r})
"""


@pytest.fixture(scope="module")
def app(cluster: Settings) -> App:
    """The renewals app, whose runtime decided on three days: a day lies between the second and the third."""
    app = changed(renewals, name=NAME)
    prepare(app, cluster)
    facts = list(synthetic_renewals(3 * A_NIGHT, seed=5))
    for number, day in enumerate((FIRST, SECOND, LAST)):
        with Publisher(app.name, source="crm", schemas=app.schemas, settings=cluster) as publisher:
            for event in facts[number * A_NIGHT : (number + 1) * A_NIGHT]:
                publisher.publish_event(event)
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        Runtime(app, cluster, OwnModels(), lambda noon=noon: noon, seed=5).run(until_end=True)  # type: ignore[misc]
    return app


@pytest.fixture
def workplace(tmp_path: Path, cluster: Settings, app: App, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with a home of its own."""
    (tmp_path / "my_nightly_app.py").write_text(MODULE.format(name=app.name))
    (tmp_path / "driftline.toml").write_text(f'[apps]\n{app.name} = "my_nightly_app:app"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", cluster.require_bootstrap())
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", cluster.require_registry())
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path / "home"))
    return tmp_path


def configured(folder: Path, *candidates: str, seed: int = 0, more: str = "") -> Path:
    """A configuration with a check of the incumbent; each seed is a run of its own among the alerts."""
    tried = "".join(f"[[apps.{NAME}.candidates]]\nmodel = '{model}'\n" for model in candidates)
    watch = f"[apps.{NAME}.incumbent]\nsample = 20\n"
    path = folder / "nightly.toml"
    path.write_text(f"[apps.{NAME}]\norder_seed = {seed}\n{more}{watch}{tried}")
    return path


def run(path: Path, *nights: date) -> list[NightDone]:
    return run_nightly(load_config(path), nights)


def tried(done: NightDone) -> dict[str, Any]:
    """The part of the only candidate."""
    [part] = [part for name, part in done.parts.items() if name not in ("verify", "incumbent")]
    return part


def alerts(cluster: Settings, app: App) -> list[str]:
    """Ids of this app's alerts, in log order."""
    reader = KafkaReader(cluster)
    mine = [record for record in reader.read(reader.span(ALERTS)) if record.key == app.name.encode()]
    return [(dict(record.headers)["ce_id"] or b"").decode() for record in mine]


def files(home: Path) -> dict[str, bytes]:
    """What lies in the home folder, but for SQLite's."""
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file() and "sqlite" not in path.name}


def test_a_night_holds_what_was_decided_in_it_whenever_its_events_happened(workplace: Path) -> None:
    days = [run(configured(workplace), night)[0] for night in (FIRST, SECOND, LAST)]
    assert [done.decisions for done in days] == [A_NIGHT] * 3
    assert {done.parts["verify"]["verdict"] for done in days} == {"equivalent"}
    assert [done.parts["incumbent"]["nights"] for done in days] == [1, 2, 3]
    assert all(0 < done.parts["incumbent"]["compared"] <= A_NIGHT for done in days)


def test_a_night_is_read_without_the_nights_around_it(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed_out = Counter[str]()

    class Counting(KafkaReader):
        def read(self, span: Span, headers: bool = True) -> Iterator[Record]:
            for record in super().read(span, headers):
                handed_out[span.topic] += 1
                yield record

        @contextmanager
        def probing(self, topic: str) -> Iterator[Probe]:
            with super().probing(topic) as look:
                yield lambda *place: handed_out.update(["looks"]) or look(*place)

    monkeypatch.setattr("driftline.console.common.KafkaReader", Counting)
    done = run(configured(workplace), SECOND)
    assert done[0].decisions == A_NIGHT
    assert handed_out[f"{NAME}.decisions"] == 2 * A_NIGHT, "once for the rules, once for the incumbent"
    looks_a_partition = 2 * (3 * A_NIGHT).bit_length() + 1
    assert 0 < handed_out["looks"] <= 2 * looks_a_partition


def test_an_empty_night_is_a_success_with_zero_decisions_and_is_told_once(
    workplace: Path, cluster: Settings, app: App
) -> None:
    path = configured(workplace, "sim/renewals-inflated")
    before = len(alerts(cluster, app))
    done = run(path, EMPTY)
    assert (done[0].decisions, exit_code(done)) == (0, 0)
    assert [again.already for again in run(path, EMPTY)] == [True]
    told = alerts(cluster, app)[before:]
    assert len(told) == 1, "the dead man must not fire because nobody had a decision to make"


def test_the_second_run_of_a_night_changes_and_publishes_nothing(
    workplace: Path, cluster: Settings, app: App
) -> None:
    path = configured(workplace, "sim/renewals-inflated", seed=2)
    first = run(path, FIRST)
    before = files(workplace / "home"), alerts(cluster, app)
    again = run(path, FIRST)
    assert (files(workplace / "home"), alerts(cluster, app)) == before
    assert [one.already for one in (*first, *again)] == [False, True]
    assert again[0].parts == first[0].parts
    assert exit_code(again) == exit_code(first)
    assert "nothing paid" in next(summary_lines(again))[0]


def test_a_night_that_is_counted_needs_no_broker(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = configured(workplace, "sim/renewals-reworded", seed=3)
    first = run(path, FIRST)
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    assert [done.parts for done in run(path, FIRST)] == [done.parts for done in first]


def test_evidence_grows_from_night_to_night_to_what_one_process_would_hold(workplace: Path) -> None:
    """The same decisions in one night or in three: one test, one number of decisions, one evidence."""
    path = configured(workplace, "sim/renewals-inflated", seed=4)
    nights = [tried(done) for done in run(path, FIRST, SECOND, EMPTY, LAST) if done.decisions]
    assert [part["nights"] for part in nights] == [1, 2, 3]
    assert [part["events"] for part in nights] == [
        sum(part["compared"] for part in nights[: number + 1]) for number in range(3)
    ]
    kept = NightsFolder(workplace / "home", NAME).load()
    [state] = kept.processes.values()
    assert state["nights"] == [str(night) for night in (FIRST, SECOND, LAST)]


def test_a_candidate_that_diverged_is_told_of_since_but_neither_asked_nor_published_again(
    workplace: Path, cluster: Settings, app: App
) -> None:
    path = configured(workplace, "sim/renewals-fenced", seed=5)
    [first] = run(path, FIRST)
    before = alerts(cluster, app)
    [second] = run(path, SECOND)
    assert [tried(done)["verdict"] for done in (first, second)] == ["diverged", "diverged"]
    assert {tried(done)["diverged_on"] for done in (first, second)} == {str(FIRST)}
    assert (tried(second)["paid_calls"], tried(second)["cost_usd"], tried(second)["alerts"]) == (0, 0, {})
    assert tried(second)["events"] == tried(first)["events"]
    [told] = [line for line, _ in summary_lines([second]) if "candidate" in line]
    assert f"since {FIRST}" in told
    assert "not asked any more, 0 calls: take it out" in told
    assert [exit_code([first]), exit_code([second])] == [1, 0], "it woke somebody on the night of its alarm"
    run_id = tried(first)["run_id"]
    assert [id_ for id_ in before if run_id in id_] == [
        f"{run_id}/ReplayCompleted/diverged",
        f"{run_id}/DivergenceAlert",
    ]
    added = [id_.partition("/")[2] for id_ in alerts(cluster, app)[len(before) :]]
    of_runs = [id_ for id_ in added if id_ != "ReplayCompleted/equivalent"]  # that of the night itself, told once
    assert of_runs == ["ReplayCompleted/inconclusive"], "of the incumbent alone"


def test_an_alarm_of_tonight_alone_ends_no_reading(workplace: Path) -> None:
    """The watch lets so many decisions pass that none of its alarms can be meant."""
    path = workplace / "nightly.toml"
    asked = "model = 'sim/renewals-fenced'\nsample = 1000\ndecisions_between_alarms = 1e300\n"
    path.write_text(f"[apps.{NAME}.incumbent]\n{asked}")
    [done] = run(path, FIRST)
    part = done.parts["incumbent"]
    assert (part["compared"], part["events"], part["drifted"]) == (A_NIGHT, A_NIGHT, False)
    assert (part["verdict"], part["stopped_because"]) == ("inconclusive", "segment_ended")


def test_a_night_ends_with_the_alarm_of_all_nights_though_tonight_alone_shows_little(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftline.console.nightly_runs.DECISIONS_MIN", 4)
    path = configured(workplace, "sim/renewals-fenced", seed=15)
    path.write_text(path.read_text() + f"[apps.{NAME}.limits]\nmax_calls = 36\nconcurrency = 1\n")
    first, second = run(path, FIRST, SECOND)
    assert (tried(first)["verdict"], tried(first)["stopped_because"]) == ("inconclusive", "budget_ended")
    assert (tried(second)["verdict"], tried(second)["stopped_because"]) == ("diverged", "alarm")
    assert tried(second)["compared"] < tried(first)["compared"] == 18, "its own 18 calls were not what it took"


def test_another_alpha_asks_nobody_about_a_night_that_is_counted(workplace: Path) -> None:
    path = configured(workplace, "sim/renewals-reworded", seed=13)
    before = run(path, FIRST)
    path.write_text(path.read_text() + f"[apps.{NAME}.limits]\nalpha = 0.4\n")
    [again] = run(path, FIRST)
    assert (again.already, again.parts) == (True, before[0].parts)
    [later] = run(path, SECOND)
    assert tried(later)["nights"] == 2


def test_another_effect_is_tested_for_from_the_next_night_on_and_that_is_said(workplace: Path) -> None:
    path = configured(workplace, "sim/renewals-reworded", seed=14)
    run(path, FIRST)
    path.write_text(path.read_text() + f"[apps.{NAME}.limits]\nmin_effect = 0.02\n")
    again, later = run(path, FIRST, SECOND)
    assert (again.already, tried(again)["nights"], tried(later)["nights"]) == (True, 1, 1)
    told = [line for line, _ in summary_lines([again, later]) if "candidate" in line]
    assert "counted with min_effect 0, 0.02 holds from the next night on" in told[0]
    assert "its evidence begins anew with min_effect 0.02" in told[1]


def test_missed_nights_are_caught_up_in_order_and_counted_ones_stay(workplace: Path) -> None:
    path = configured(workplace, "sim/renewals-reworded", seed=6)
    run(path, SECOND)
    config = load_config(path)
    morning = datetime(2026, 10, 5, 6, tzinfo=UTC)
    done = run_nightly(config, config.nights(None, FIRST, morning))
    assert [(one.night, one.already) for one in done] == [
        (str(FIRST), False),
        (str(SECOND), True),
        (str(EMPTY), False),
        (str(LAST), False),
    ]


def test_a_candidate_that_is_added_later_is_asked_alone(workplace: Path) -> None:
    before = run(configured(workplace, "sim/renewals-reworded", seed=7), FIRST)[0]
    after = run(configured(workplace, "sim/renewals-reworded", "sim/renewals-noisier", seed=7), FIRST)[0]
    assert {name: after.parts[name] for name in before.parts} == before.parts
    assert len(after.parts) == len(before.parts) + 1


def test_the_nights_parquet_is_read_as_one_table_by_date(workplace: Path) -> None:
    run(configured(workplace, "sim/renewals-inflated", seed=8), FIRST, SECOND)
    glob = f"{workplace}/home/nights/{NAME}/date=*/pairs-*.parquet"
    found = rows(f"SELECT date::VARCHAR, count(DISTINCT run_id) FROM '{glob}' GROUP BY 1 ORDER BY 1")
    assert found == [(str(FIRST), 2), (str(SECOND), 2)], "one run of the incumbent and one of the candidate a night"
    glob = f"{workplace}/home/nights/{NAME}/date=*/standing-*.parquet"
    assert rows(f"SELECT count(*) > 0 FROM '{glob}' WHERE level = 'verdict'") == [(True,)]


def rows(sql: str) -> list[Any]:
    with duckdb.connect() as db:
        return db.execute(sql).fetchall()


def test_calls_are_held_within_what_a_night_may_make(workplace: Path) -> None:
    limits = f"[apps.{NAME}.limits]\nmax_calls = 12\nconcurrency = 1\n"
    path = configured(workplace, "sim/renewals-reworded", "sim/renewals-noisier", seed=9)
    path.write_text(path.read_text() + limits)
    [done] = run(path, FIRST)
    made = [part["paid_calls"] + part["overspent_calls"] for name, part in done.parts.items() if name != "verify"]
    assert made == [4, 4, 4]


def test_what_goes_wrong_with_one_app_leaves_the_others_their_night(workplace: Path) -> None:
    path = configured(workplace, "sim/renewals-reworded", seed=10)
    path.write_text("[apps.unheard-of]\n" + path.read_text())
    lost, done = run(path, FIRST)
    assert lost.error is not None
    assert "unheard-of" in str(lost.error)
    assert (done.app, done.decisions) == (NAME, A_NIGHT)
    assert exit_code([lost, done]) == UsageError.exit_code


def test_the_summary_says_the_same_in_every_form(workplace: Path) -> None:
    done = run(configured(workplace, "sim/renewals-inflated", seed=11), FIRST)
    data = summary_data(done)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    verdict = tried(done[0])["verdict"]
    assert verdict in [shown for _, shown in summary_lines(done)]
    assert f"| candidate | {verdict} |" in summary_markdown(done)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with serving() as server:
        yield server


def command(provider: Provider, home: Path, arguments: Sequence[str], kill_at: int = 0) -> tuple[int, str]:
    """Exit code and output of one `driftline nightly`, which the provider may kill."""
    provider.asked, provider.answered, provider.kill_at = 0, 0, kill_at
    environment = {**os.environ, "DRIFTLINE_HOME": str(home), "OPENAI_API_KEY": "none", "PYTHONPATH": "."}
    given = [str(DRIFTLINE), "nightly", "--json", *arguments]
    with subprocess.Popen(
        given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as provider.client:
        stdout, stderr = provider.client.communicate(timeout=100)
    assert "Traceback" not in stderr, stderr
    return provider.client.returncode, stdout


def test_a_night_that_was_killed_goes_on_pays_nothing_twice_and_alerts_once(
    workplace: Path, provider: Provider, cluster: Settings, app: App
) -> None:
    calls = 40
    path = workplace / "nightly.toml"
    tried_here = (
        f"[[apps.{NAME}.candidates]]\nmodel = 'openai/mine'\nparameters = {{ api_base = '{provider.url}' }}\n"
    )
    limits = f"alpha = 1e-9\nconcurrency = 1\nmax_calls = {calls}\nallow_unpriced = true\n"
    path.write_text(f"[apps.{NAME}]\n[apps.{NAME}.limits]\n{limits}{tried_here}")
    night = ["--date", str(FIRST)]
    killed, _ = command(provider, workplace / "killed", night, kill_at=calls // 2)
    assert killed == -signal.SIGKILL
    before = provider.answered
    code, resumed = command(provider, workplace / "killed", night)
    assert (code, before + provider.answered) == (4, calls)
    told = alerts(cluster, app)
    assert command(provider, workplace / "killed", night)[0] == 4
    assert (provider.asked, alerts(cluster, app)) == (0, told)
    _, unbroken = command(provider, workplace / "unbroken", night)
    assert provider.answered == calls
    assert evidence(resumed) == evidence(unbroken)
    assert len(told) == len(set(told)) == len(alerts(cluster, app)), "both homes made one run, which is told once"


def evidence(summary: str) -> tuple[Any, ...]:
    [night] = json.loads(summary)["nights"]
    [part] = [part for name, part in night["parts"].items() if name != "verify"]
    return part["run_id"], part["verdict"], part["e_value"], part["events"], part["strata"], part["paid_calls"]


def test_two_nightlies_at_once_do_not_count_one_night_twice(workplace: Path) -> None:
    path = configured(workplace, "sim/renewals-reworded", seed=12)
    with NightsFolder(workplace / "home", NAME).locked():
        [refused] = run(path, FIRST)
    assert refused.error is not None
    assert "another `driftline nightly`" in str(refused.error)
    assert not (workplace / "home" / "nights" / NAME / KEPT).exists()


def test_tonight_is_not_over(workplace: Path) -> None:
    config = load_config(configured(workplace))
    noon = datetime(2026, 10, 4, 12, tzinfo=UTC)
    assert config.nights(None, None, noon) == [EMPTY]
    with pytest.raises(UsageError, match="not over"):
        config.nights(LAST, None, noon)
    assert config.nights(LAST, None, noon + timedelta(days=1)) == [LAST]
