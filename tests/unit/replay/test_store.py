"""The store: a run as tables that agree with its result, and the queries that the README promises."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from driftline.console.main import app as driftline
from driftline.consumers.judging import Judgement
from driftline.consumers.proposing import Answer, ProposalRequest, ProposerFailure
from driftline.replay import (
    AppSubject,
    Candidate,
    ForcedResult,
    Limits,
    Segment,
    query,
    report_data,
    write_store,
)
from driftline.replay.levels import LEVELS
from driftline.replay.testing import OwnModels
from driftline.schemas import Attempt, BadInput, Decision

README = Path(__file__).parents[3] / "replay" / "README.md"
Replay = Callable[..., ForcedResult]


class Told:
    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def propose(self, request: ProposalRequest) -> Answer:
        return self.answer


def stored(folder: Path, result: ForcedResult) -> Path:
    report = report_data("renewals", "sim/renewals", "sim/renewals-inflated", result, Limits())
    run = {**report, "baseline_prompt_hash": "p1", "candidate_prompt_hash": "p1", "verifier_version": "v1"}
    return write_store(folder, result, {**run, "completed_at": "2026-09-23T00:00:00.000Z"})


@pytest.fixture
def inflated(replay: Replay, renewals_history: Segment, renewals_subject: AppSubject) -> ForcedResult:
    candidate = Candidate("sim/renewals-inflated")
    return replay(renewals_history, OwnModels(), subject=renewals_subject, candidate=candidate, read_on=True)


@pytest.fixture
def database(tmp_path: Path, inflated: ForcedResult) -> Path:
    return stored(tmp_path / "run", inflated)


def one(database: Path, sql: str) -> tuple[Any, ...]:
    return query(database, sql)[1][0]


def test_counts_and_rates_in_the_tables_agree_with_the_result(database: Path, inflated: ForcedResult) -> None:
    verdict = next(level for level in inflated.judged.levels if level.level == "verdict")
    assert one(database, "SELECT count(*), count(*) FILTER (evidence), count(*) FILTER (lost) FROM pairs") == (
        len(inflated.pairs),
        inflated.judged.events_at_stop,
        0,
    )
    flips = "SELECT count(*) FILTER (candidate_verdict = 'rejected'), count(*) FROM flips"
    assert one(database, flips) == (verdict.flips_down, (verdict.flips_down or 0) + (verdict.flips_up or 0))
    for level in inflated.judged.levels:
        share = one(database, f"SELECT avg({level.level}_changed::INT) FROM compared")[0]
        assert share == pytest.approx(level.mismatch), level.level
    assert one(database, "SELECT sum(decisions) FROM by_stream") == (len(inflated.pairs),)
    assert one(database, "SELECT verdict, paid_calls, coverage FROM run") == (
        inflated.verdict,
        inflated.paid_calls,
        inflated.coverage,
    )
    strata = "SELECT count(*), count(*) FILTER (named) FROM strata"
    named = sum(stratum.named for stratum in inflated.judged.strata)
    assert one(database, strata) == (len(inflated.judged.strata), named)


def test_pairs_stand_in_planned_order_with_coordinates_that_lead_back_to_the_log(
    database: Path, inflated: ForcedResult
) -> None:
    _, rows = query(database, "SELECT coordinates, event_time, candidate_text FROM pairs ORDER BY turn")
    assert [row[0] for row in rows] == [str(pair.logged.at) for pair in inflated.pairs]
    first = inflated.pairs[0]
    assert rows[0][1:] == (
        first.logged.decision.input.event_time.replace(tzinfo=None),
        first.candidate.answer.text,
    )


def test_the_five_queries_of_the_readme_run_and_find_something(database: Path) -> None:
    queries = re.findall(r"```sql\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(queries) == 5
    for sql in queries:
        columns, rows = query(database, sql)
        assert columns, sql
        assert rows, sql


def test_every_column_is_in_the_readme(database: Path) -> None:
    text = README.read_text()
    for table in (
        "run",
        "pairs",
        "floor",
        "strata",
        "changes",
        "reads",
        "compared",
        "by_stream",
        "by_field",
        "noise",
    ):
        for column in query(database, f"FROM {table} LIMIT 0")[0]:
            of_an_arm = column.removeprefix("baseline_").removeprefix("candidate_")
            of_a_level = "…_<level>_hash" if of_an_arm.removesuffix("_hash") in LEVELS else f"…_{of_an_arm}"
            assert f"`{column}`" in text or f"`{of_a_level}`" in text, (table, column)


def test_parquet_beside_it_holds_the_same_rows(database: Path) -> None:
    for table in ("run", "pairs", "floor", "strata", "changes", "reads"):
        with duckdb.connect() as db:
            found = db.execute("SELECT * FROM read_parquet(?)", [str(database.parent / f"{table}.parquet")])
            assert [column[0] for column in found.description] == query(database, f"FROM {table}")[0]
            assert found.fetchall() == query(database, f"FROM {table}")[1]


def test_customer_segments_are_in_the_context(database: Path, inflated: ForcedResult) -> None:
    sql = "SELECT context->>'$.event.contract', count(*) FROM pairs GROUP BY ALL"
    contracts = [pair.logged.decision.context_value()["event"]["contract"] for pair in inflated.pairs]
    assert dict(query(database, sql)[1]) == {name: contracts.count(name) for name in set(contracts)}


def test_every_changed_action_has_its_changed_fields_and_no_other_pair_has_any(database: Path) -> None:
    changed = (
        "SELECT count(*), count(*) FILTER (decision_id IN (SELECT decision_id FROM changes)) FROM changed_actions"
    )
    pairs, with_fields = one(database, changed)
    assert pairs == with_fields == one(database, "SELECT count(DISTINCT decision_id) FROM changes")[0] > 0


def test_a_changed_field_stands_with_what_it_was_and_is(database: Path) -> None:
    told = "before = (baseline_action->'$.discount_pct') AND after = (candidate_action->'$.discount_pct')"
    source = "changes JOIN pairs USING (decision_id) WHERE path = '/payload/discount_pct'"
    sql = f"SELECT bool_and({told}), count(*) FROM {source}"
    agree, rows = one(database, sql)
    assert agree
    assert rows > 0


def test_free_text_is_no_changed_field(database: Path) -> None:
    paths = {path for (path,) in query(database, "SELECT DISTINCT path FROM changes")[1]}
    assert "/payload/discount_pct" in paths
    assert not {path for path in paths if "rationale" in path or "reason" in path}


@pytest.fixture
def floored(inflated: ForcedResult) -> ForcedResult:
    """The run with three answers of the incumbent to each decision: the log's twice, and the candidate's."""
    pairs = [replace(pair, floor=(pair.baseline, pair.baseline, pair.candidate)) for pair in inflated.pairs]
    return replace(inflated, pairs=pairs)


def test_every_answer_of_the_incumbent_is_a_row_with_its_hashes(tmp_path: Path, floored: ForcedResult) -> None:
    database = stored(tmp_path, floored)
    found = query(database, "SELECT turn, replicate, verdict, accepted, action_hash FROM floor ORDER BY ALL")[1]
    assert found == [
        (pair.index, replicate, judged.verdict, judged.judgement.accepted, judged.hashes.get("action"))
        for pair in floored.pairs
        for replicate, judged in enumerate(pair.floor)
    ]


def test_noise_is_the_mean_share_of_pairs_of_incumbent_runs_that_differ(
    tmp_path: Path, floored: ForcedResult
) -> None:
    database = stored(tmp_path, floored)
    rows = query(database, "SELECT level, sum(decisions), sum(noise * decisions) FROM noise GROUP BY level")[1]
    changed = {level.level: level.mismatch or 0.0 for level in floored.judged.levels if level.level in LEVELS}
    assert {level for level, _, _ in rows} == set(LEVELS)
    for level, decisions, noise in rows:
        assert decisions == len(floored.pairs)
        assert noise / decisions == pytest.approx(changed[level] * 2 / 3), "two of the three pairs hold the other"
    assert one(database, "SELECT bool_and(excess = candidate - noise) FROM noise") == (True,)


def test_an_answer_without_an_action_differs_from_one_that_has_it(
    tmp_path: Path, replay: Replay, questions: Callable[..., Segment]
) -> None:
    result = replay(questions(3), Told(Answer("yes")))
    silent = replace(result.pairs[0].baseline, judgement=Judgement())
    pairs = [replace(pair, floor=(pair.baseline, silent)) for pair in result.pairs]
    database = stored(tmp_path, replace(result, pairs=pairs))
    assert one(database, "SELECT noise, candidate, excess FROM noise WHERE level = 'action'") == (1.0, 0.0, -1.0)
    assert one(database, "SELECT noise FROM noise WHERE level = 'verdict'") == (0.0,)


def test_a_run_of_the_incumbent_that_was_lost_is_no_noise(tmp_path: Path, floored: ForcedResult) -> None:
    gone = replace(floored.pairs[0].baseline, answer=Answer(None, ProposerFailure.TIMEOUT))
    pairs = [replace(pair, floor=(pair.baseline, gone)) for pair in floored.pairs]
    database = stored(tmp_path, replace(floored, pairs=pairs))
    assert one(database, "SELECT count(*) FILTER (lost), count(*) FROM floor") == (len(pairs), 2 * len(pairs))
    assert query(database, "FROM noise")[1] == []


@pytest.mark.parametrize("name", ["o'clock", "a [b] *c", 'say "hello"', "ü"])
def test_a_folder_may_have_any_name(name: str, tmp_path: Path, inflated: ForcedResult) -> None:
    database = stored(tmp_path / name, inflated)
    assert one(database, "SELECT count(*) FROM pairs") == (len(inflated.pairs),)
    assert sorted(path.name for path in database.parent.iterdir()) == [
        "changes.parquet",
        "floor.parquet",
        "pairs.parquet",
        "reads.parquet",
        "replay.duckdb",
        "run.parquet",
        "strata.parquet",
    ]


def test_whatever_a_model_wrote_can_be_stored(
    tmp_path: Path, replay: Replay, questions: Callable[..., Segment], make_question: Callable[..., Decision]
) -> None:
    logged = [make_question(n, [Attempt(number=1, raw_response="\ud800 'quoted'")]) for n in range(3)]
    wild = Answer(
        "\udfff \x00 \"'; DROP TABLE pairs; -- é \U0001f600\n", cost_usd=float("nan"), latency_ms=float("inf")
    )
    database = stored(tmp_path, replay(questions(decisions=logged), Told(wild)))
    text, latency = one(database, "SELECT candidate_text, candidate_latency_ms FROM pairs LIMIT 1")
    assert (text, latency) == ("\\udfff" + (wild.text or "")[1:], None)
    assert one(database, "SELECT baseline_text FROM pairs LIMIT 1") == ("\\ud800 'quoted'",)


def test_a_text_of_many_megabytes_is_stored_whole(
    tmp_path: Path, replay: Replay, questions: Callable[..., Segment]
) -> None:
    long = Answer("yes " * 8_000_000)
    database = stored(tmp_path, replay(questions(2), Told(long)))
    assert one(database, "SELECT max(length(candidate_text)) FROM pairs") == (32_000_000,)


def test_a_run_with_no_outcome_at_all_is_stored(
    tmp_path: Path, replay: Replay, questions: Callable[..., Segment]
) -> None:
    result = replay(questions(3), Told(Answer(None, ProposerFailure.TIMEOUT)))
    database = stored(tmp_path, result)
    assert one(database, "SELECT count(*) FROM pairs WHERE lost") == (3,)
    assert query(database, "FROM by_stream")[1] == []
    assert one(database, "SELECT verdict, cost_usd, alarm_after FROM run") == ("inconclusive", 0.0, None)


def test_a_run_that_could_not_be_written_leaves_the_earlier_one(
    tmp_path: Path, inflated: ForcedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = stored(tmp_path / "run", inflated)
    monkeypatch.setattr("driftline.replay.store.VIEWS", "CREATE VIEW this is no SQL")
    with pytest.raises(BadInput, match="no call is paid again") as caught:
        stored(tmp_path / "run", inflated)
    assert "\n" not in str(caught.value)
    assert one(database, "SELECT count(*) FROM flips")[0] > 0
    assert len(list(database.parent.iterdir())) == 7


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, inflated: ForcedResult) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="file"):
        stored(tmp_path / "file" / "run", inflated)


def test_a_stored_shadow_run_is_shown_as_any(
    tmp_path: Path, inflated: ForcedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_data("renewals", "sim/renewals", "sim/renewals-inflated", inflated, Limits())
    report |= {"mode": "shadow", "follows_from": {"0": 0}, "passed_over": 0}
    database = write_store(tmp_path / "runs" / "followed", inflated, {**report, "report": report})
    assert one(database, "SELECT mode FROM run") == ("shadow",)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_HOME", str(tmp_path))
    shown = CliRunner().invoke(driftline, ["report", "followed", "--html", "run.html", "--markdown", "run.md"])
    assert shown.exit_code == 0, shown.exception
    assert "DIVERGED" in (tmp_path / "run.md").read_text()
    assert "DIVERGED" in CliRunner().invoke(driftline, ["report", "followed"]).output


def test_a_query_that_is_none_is_one_line(database: Path) -> None:
    with pytest.raises(BadInput, match=r"DuckDB: .*nowhere") as caught:
        query(database, "FROM nowhere")
    assert "\n" not in str(caught.value)


def test_a_database_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="run `driftline replay` first"):
        query(tmp_path / "replay.duckdb", "FROM run")


def test_a_query_cannot_change_a_run(database: Path) -> None:
    with pytest.raises(BadInput, match="read-only"):
        query(database, "DELETE FROM pairs")
