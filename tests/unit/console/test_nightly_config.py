"""The file of `driftline nightly`: the example can be run, nights are calendar days, mistakes have a place."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftline.console.exporting.nights import read_nights
from driftline.console.main import app
from driftline.console.nightly import NightDone
from driftline.console.nightly_config import FIRST_NIGHT, NightlyConfig, load_config
from driftline.console.nightly_output import exit_code
from driftline.schemas import BadInput, KafkaUnreachable, UsageError

EXAMPLE = Path(__file__).parents[3] / "deploy" / "nightly.example.toml"
DAY = date(2026, 10, 24)


def written(folder: Path, text: str) -> Path:
    path = folder / "nightly.toml"
    path.write_text(text)
    return path


def test_the_example_that_is_deployed_can_be_read() -> None:
    config = load_config(EXAMPLE)
    renewals = config.apps["renewals"]
    assert renewals.incumbent is not None
    assert [candidate.arm.model for candidate in renewals.candidates] == ["sim/renewals-inflated"]
    assert renewals.run_limits(2.5).usd_max == 2.5


@pytest.mark.parametrize(("zone", "hours"), [("UTC", 24), ("Europe/Prague", 25)])
def test_a_night_is_a_calendar_day_of_its_zone(zone: str, hours: int) -> None:
    config = NightlyConfig.model_validate({"timezone": zone, "apps": {"one": {}}})
    first, last = config.span(DAY + timedelta(days=1))
    assert (last - first) == timedelta(hours=hours), "on this day clocks go back in Europe"
    assert first.tzinfo is UTC
    assert config.span(DAY)[1] == first


def test_without_a_date_it_is_the_last_night_that_is_over_where_one_lives() -> None:
    config = NightlyConfig.model_validate({"timezone": "Asia/Tokyo", "apps": {"one": {}}})
    late = datetime(2026, 10, 24, 20, tzinfo=UTC)
    assert config.nights(None, None, late) == [DAY]
    assert config.nights(None, date(2026, 10, 22), late) == [date(2026, 10, 22), date(2026, 10, 23), DAY]


def test_nights_that_end_before_they_begin_are_refused() -> None:
    config = NightlyConfig.model_validate({"apps": {"one": {}}})
    with pytest.raises(UsageError, match="--since"):
        config.nights(date(2026, 10, 1), date(2026, 10, 2), datetime(2026, 10, 9, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[apps.one", "not TOML"),
        ("apps = 3", "apps"),
        ("[apps.one]\nsampel = 3", "sampel"),
        ("timezone = 'Mars/Base'\n[apps.one]", "time zone"),
        ("[apps.One]", "no app's name"),
        ("[apps.one.limits]\nalpha = 2", "alpha"),
        ("[[apps.one.candidates]]\nmodel = 'a/b'\n[[apps.one.candidates]]\nmodel = 'a/b'", "twice"),
        (
            "[apps.one.incumbent]\n[apps.one.limits]\nmax_calls = 1\n[[apps.one.candidates]]\nmodel = 'a/b'",
            "its 2 runs",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        load_config(written(tmp_path, text))


def test_a_candidate_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="changes nothing"):
        load_config(written(tmp_path, "[[apps.one.candidates]]\n"))


def test_prompts_lie_beside_the_file_and_their_text_is_part_of_the_label(tmp_path: Path) -> None:
    (tmp_path / "v2.md").write_text("---\n---\nDecide: {{ event | tojson }}")
    path = written(tmp_path, "[[apps.one.candidates]]\nprompt = 'v2.md'\n")
    before = load_config(path).apps["one"]
    (tmp_path / "v2.md").write_text("---\n---\nDecide well: {{ event | tojson }}")
    after = load_config(path).apps["one"]
    assert before.label(before.candidates[0]) != after.label(after.candidates[0])


@pytest.mark.parametrize("text", ["", "# nobody has nights\n", "[apps]\n", "timezone = 'Asia/Tokyo'\n"])
def test_a_file_without_apps_says_to_everybody_that_none_has_nights(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    assert load_config(path).apps == {}
    assert read_nights(path) == {}
    told = CliRunner().invoke(app, ["nightly", "--config", str(path)])
    assert (told.exit_code, "nothing to do" in told.output) == (0, True)
    data = CliRunner().invoke(app, ["nightly", "--config", str(path), "--json"])
    assert json.loads(data.output) == {"exit_code": 0, "nights": []}


@pytest.mark.parametrize("limit", ["alpha = 0.1", "delta = 0.1", "min_effect = 0.02", "budget_usd = 1"])
def test_a_candidate_is_the_same_one_under_other_limits(tmp_path: Path, limit: str) -> None:
    tried = "[[apps.one.candidates]]\nmodel = 'a/b'\n"
    before = load_config(written(tmp_path, tried)).apps["one"]
    after = load_config(written(tmp_path, f"[apps.one.limits]\n{limit}\n{tried}")).apps["one"]
    assert before.label(before.candidates[0]) == after.label(after.candidates[0])


def test_calls_are_shared_out_evenly_beforehand(tmp_path: Path) -> None:
    two = "".join(f"[[apps.one.candidates]]\nmodel = 'sim/{name}'\n" for name in ("a", "b"))
    limits = "[apps.one.limits]\nmax_calls = 10\n[apps.one.incumbent]\n"
    config = load_config(written(tmp_path, limits + two))
    assert config.apps["one"].run_limits(None).calls_max == 3


def test_calls_of_an_app_that_asks_nobody_are_shared_out_among_nobody() -> None:
    config = NightlyConfig.model_validate({"apps": {"one": {"limits": {"max_calls": 10}}}})
    assert config.apps["one"].run_limits(None).calls_max == 10


@pytest.mark.parametrize("first", ["0001-01-01", "1970-01-01"])
def test_a_night_before_kafkas_time_is_refused(first: str) -> None:
    config = NightlyConfig.model_validate({"timezone": "Asia/Tokyo", "apps": {"one": {}}})
    with pytest.raises(UsageError, match="1970-01-02"):
        config.nights(DAY, date.fromisoformat(first), datetime(2026, 10, 26, tzinfo=UTC))
    assert config.nights(FIRST_NIGHT, None, datetime(2026, 10, 26, tzinfo=UTC)) == [FIRST_NIGHT]


def done(verdict: str | None, part: str = "label", error: bool = False, asked: bool = True) -> NightDone:
    parts = {part: {"verdict": verdict, "asked": asked}}
    return NightDone("one", "2026-10-01", 1, parts, errors=(KafkaUnreachable("no"),) if error else ())


@pytest.mark.parametrize(
    ("nights", "code"),
    [
        ([], 0),
        ([done(None)], 0),
        ([done("equivalent"), done("inconclusive")], 4),
        ([done("inconclusive"), done("diverged"), done("equivalent")], 1),
        ([done("diverged"), done("equivalent", error=True)], 3),
        ([done("inconclusive", "incumbent")], 0),
        ([done("diverged", "incumbent")], 1),
        ([done("diverged", asked=False)], 0),
        ([done("diverged", asked=False), done("inconclusive")], 4),
    ],
)
def test_the_exit_code_is_the_worst_of_all(nights: list[NightDone], code: int) -> None:
    assert exit_code(nights) == code
