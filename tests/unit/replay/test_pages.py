"""The page and the Markdown: what they say, that a model's text cannot say anything else, and how large they grow."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.replay import ForcedResult, Limits, report_data, write_store
from driftline.replay.html import PAGE_BYTES_MAX, render_html
from driftline.replay.markdown import escaped, render_markdown
from driftline.replay.stored import StoredRun, find_run, read_run
from driftline.schemas import BadInput, UsageError


class Reader(HTMLParser):
    """The tags of a page and the text that a person sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def stored(folder: Path, result: ForcedResult, **report: Any) -> StoredRun:
    data = {**report_data("quiz", "acme/last", "acme/next", result, Limits()), **report}
    return read_run(write_store(folder, result, {**data, "report": data}))


@pytest.fixture
def run(tmp_path: Path, wild: ForcedResult) -> StoredRun:
    return stored(tmp_path / "runs" / "wild", wild)


def page_of(run: StoredRun, **more: Any) -> str:
    return render_html({**run.report, **more}, run.flips, run.segment)


def test_a_stored_run_has_its_report_and_its_flips_with_what_was_asked(run: StoredRun, wild: ForcedResult) -> None:
    assert run.report == report_data("quiz", "acme/last", "acme/next", wild, Limits())
    assert len(run.flips) == min(50, len(wild.pairs))
    assert run.flips[0]["at"] == str(wild.pairs[0].logged.at)
    assert run.flips[0]["asked"]["messages"][0]["content"] == "yes or no?"
    assert run.flips[0]["candidate"]["rejections"][0]["code"] == "wrong_answer"
    assert (run.segment["decisions"], run.segment["flips"]) == (len(wild.pairs), len(wild.pairs))
    assert run.segment["streams"] == ["quiz"]


def test_the_page_says_the_verdict_in_one_sentence_with_its_interval(run: StoredRun) -> None:
    text = " ".join(Reader(page_of(run)).text.split())
    verdict = run.report["levels"]["verdict"]
    assert (
        "acme/next decides otherwise than acme/last: 100.0% of the answers were accepted before and 0.0% now" in text
    )
    assert f"[{100 * verdict['interval'][0]:+.1f}, {100 * verdict['interval'][1]:+.1f}]" in text
    assert run.flips[0]["at"] in text


def test_what_a_model_wrote_is_text_on_the_page_and_nothing_else(run: StoredRun) -> None:
    page = Reader(page_of(run, note="<b>note</b>", baseline="<i>model</i>/x", prompt_diff="+<script>p()</script>"))
    assert not {"script", "img", "iframe", "link", "b onclick"} & {tag for tag, _ in page.tags}
    assert "<script>alert(1)</script>" in page.text
    assert "<b>note</b>" in page.text
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_names_no_other_resource(run: StoredRun) -> None:
    page = page_of(run)
    assert not re.search(r"@import|url\(", page)
    assert not [
        attributes for _, attributes in Reader(page).tags if {"src", "href", "data", "action"} & attributes.keys()
    ]
    assert "default-src 'none'" in page


def test_flips_are_folded_but_for_the_first_two(run: StoredRun) -> None:
    folds = [attributes for tag, attributes in Reader(page_of(run)).tags if tag == "details"]
    assert len(folds) == len(run.flips)
    assert ["open" in attributes for attributes in folds[:3]] == [True, True, False]


def test_the_page_stays_under_a_megabyte_and_says_what_it_left_out(run: StoredRun) -> None:
    side: dict[str, Any] = {
        "model": "m/" + "é" * 5000,
        "verdict": "rejected",
        "rejections": [],
        "action": None,
        "failure": None,
    }
    flip = {**run.flips[0], "asked": {"messages": [{"role": "user", "content": "<&>" * 9000}] * 30}}
    flips = [{**flip, "baseline": {**side, "text": "<'\"&>" * 9000}, "candidate": {**side, "text": "é" * 90000}}] * 60
    strata = [{**run.report["strata"][0], "stream": f"{number}" * 500, "level": "verdict"} for number in range(5000)]
    report = {**run.report, "strata": strata, "prompt_diff": "+" + "<" * 900 + "\n" + "-x\n" * 5000}
    page = render_html(report, flips, {**run.segment, "changed": 60})
    assert len(page.encode()) <= PAGE_BYTES_MAX
    text = Reader(page).text
    assert re.search(r"\d+ of 60 pairs", text)
    assert "4800 more are in the run's table" in text
    assert "more lines" in text


def test_a_noise_floor_stands_beside_what_differs(run: StoredRun) -> None:
    floor = {
        "arms": ["acme/last@1", "acme/last@2"],
        "levels": {"action": {"mismatch": 0.125, "interval": [0.1, 0.2]}},
    }
    assert "noise floor: 12.5%, interval 10.0% to 20.0%" in Reader(page_of(run, noise_floor=floor)).text
    assert "No noise floor was measured" in Reader(page_of(run)).text


def test_the_cause_stands_with_its_sentence_and_its_contrasts(run: StoredRun) -> None:
    contrast = {"arms": ["acme/last", "acme/last today"], "verdict": "diverged", "change": -0.5}
    attribution = {
        "cause": "environment",
        "why": "the <incumbent> answers otherwise",
        "contrasts": {"environment": {**contrast, "interval": [-0.6, -0.4], "e_value": 77.0}, "candidate": None},
        "verifier_drift": 0,
    }
    text = Reader(page_of(run, attribution=attribution)).text
    assert "cause: environment; the <incumbent> answers otherwise" in text
    assert "acme/last → acme/last today" in text
    assert "cause: environment; the &lt;incumbent&gt;" in render_markdown({**run.report, "attribution": attribution})
    assert "cause: unknown" in Reader(page_of(run)).text


def test_a_report_of_before_there_were_causes_and_evidence_of_every_level_has_its_pages(run: StoredRun) -> None:
    levels = {
        name: level and {key: level[key] for key in level.keys() - {"decides", "noise"}}
        for name, level in run.report["levels"].items()
    }
    strata = [{key: one[key] for key in one.keys() - {"decides", "noise"}} for one in run.report["strata"]]
    old = {**run.report, "levels": levels, "strata": strata, "attribution": None}
    assert "cause:" not in Reader(page_of(run, **old)).text
    assert "| verdict | 100.0% | -100.0 pp |" in render_markdown(old)


def test_what_is_not_known_has_its_sentence(run: StoredRun) -> None:
    page = Reader(page_of(run, verdict="inconclusive", stopped_because="segment_ended"))
    assert "is not known: every decision" in page.text


@pytest.mark.parametrize(
    ("interval", "said"),
    [((-0.04, 0.05), "may take the place of"), ((-0.3, 0.3), "these are too few to say it"), (None, "too few")],
)
def test_equivalent_says_more_than_its_segment_only_where_the_interval_does(
    interval: tuple[float, float] | None, said: str, run: StoredRun
) -> None:
    verdict = {**run.report["levels"]["verdict"], "interval": interval or (-1.0, 1.0)}
    page = page_of(run, verdict="equivalent", levels={**run.report["levels"], "verdict": verdict})
    assert said in Reader(page).text


def test_an_earlier_run_stands_beside_this_one(run: StoredRun) -> None:
    earlier = {**run.report, "run_id": "before", "verdict": "equivalent", "e_value": 1.5, "paid_calls": 77}
    text = Reader(render_html(run.report, run.flips, run.segment, earlier)).text
    markdown = render_markdown(run.report, earlier)
    for figure in ("before", "equivalent", "1.5", "77"):
        assert figure in text
    assert "| verdict | equivalent | diverged |" in markdown


def test_markdown_holds_verdict_levels_and_examples(run: StoredRun) -> None:
    markdown = render_markdown(run.report)
    assert markdown.startswith("## DIVERGED — quiz: acme/last → acme/next\n")
    assert "| verdict | 100.0% | -100.0 pp |" in markdown
    assert "<details><summary>" in markdown


def test_a_models_text_cannot_leave_its_block_in_markdown(run: StoredRun) -> None:
    text = "```\n</details><script>x</script>\n````"
    example = run.report["examples"][0]
    report = {**run.report, "examples": [{**example, "candidate": {**example["candidate"], "text": text}}]}
    assert f"\n`````text\n{text}\n`````\n" in render_markdown(report)


@given(st.text(max_size=40))
def test_a_name_in_markdown_opens_no_tag_table_or_line(name: str) -> None:
    found = escaped(name)
    assert "\n" not in found
    assert not re.search(r"<|>|(?<!\\)(\\\\)*[|`\[]", found)


def test_a_run_is_found_by_its_id_or_as_the_newest(tmp_path: Path, run: StoredRun) -> None:
    runs = tmp_path / "runs"
    assert find_run(runs, None) == find_run(runs, "wild") == runs / "wild" / "replay.duckdb"
    with pytest.raises(UsageError, match="the newest are wild"):
        find_run(runs, "other")
    with pytest.raises(UsageError, match="run `driftline replay` first"):
        find_run(tmp_path / "nowhere", None)


def test_a_run_without_a_report_says_how_to_get_one(tmp_path: Path, wild: ForcedResult) -> None:
    database = write_store(tmp_path / "old", wild, {})
    with pytest.raises(BadInput, match="no call is paid twice"):
        read_run(database)


def test_a_run_in_which_nothing_changed_has_a_page(
    tmp_path: Path, replay: Callable[..., ForcedResult], questions: Callable[..., Any], says: Callable[[str], Any]
) -> None:
    equal = stored(tmp_path / "equal", replay(questions(30), says("yes"), run_id="equal"))
    text = Reader(page_of(equal)).text
    assert "None." in text
    assert equal.flips == []


def test_levels_that_no_answer_has_are_left_out(run: StoredRun) -> None:
    levels: Mapping[str, Any] = run.report["levels"]
    assert levels["state"] is None
    charted = re.findall(r"<span>(\w+)</span>\n<svg", page_of(run))
    assert "action" in charted
    assert "state" not in charted
