"""Prompts: what a template may see, and that it says the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.consumers import Prompt
from driftline.consumers.prompt import RecordedMessages
from driftline.schemas import BadInput, content_hash

CONTEXT = {"event": {"name": "O'Brien", "amount": 4, "tags": ["b", "a"]}, "row": {}}


def said(template: str) -> str:
    return str(Prompt(template).messages(CONTEXT)[-1]["content"])


def test_the_line_parts_the_system_message_from_the_user_message() -> None:
    messages = Prompt("Be brief.\n---user---\nAbout {{ event.amount }}\n").messages(CONTEXT)
    assert messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "About 4"}]


def test_without_the_line_all_is_the_user_message() -> None:
    assert Prompt("About {{ event.amount }}").messages(CONTEXT) == [{"role": "user", "content": "About 4"}]


@pytest.mark.parametrize("text", ["Write ---user--- now\n", "a---user---\nb", "-----user---\nb"])
def test_only_the_whole_line_parts(text: str) -> None:
    assert len(Prompt(text).messages(CONTEXT)) == 1


def test_the_line_may_end_in_blanks_or_end_the_file() -> None:
    assert [m["content"] for m in Prompt("a\n---user---  \nb").messages(CONTEXT)] == ["a", "b"]
    assert [m["content"] for m in Prompt("a\n---user---").messages(CONTEXT)] == ["a", ""]


def test_a_file_with_windows_line_ends_is_the_same_prompt(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_bytes(b"a\n---user---\nb")
    (tmp_path / "two.md").write_bytes(b"a\r\n---user---\r\nb")
    one, two = Prompt.from_file(tmp_path / "one.md"), Prompt.from_file(tmp_path / "two.md")
    assert (one.hash, one.messages(CONTEXT)) == (two.hash, two.messages(CONTEXT))


def test_the_hash_is_that_of_the_text_and_of_nothing_else() -> None:
    assert Prompt("a {{ b }}", "one.md").hash == Prompt("a {{ b }}", "two.md").hash == content_hash("a {{ b }}")
    assert Prompt("a {{ b }}").hash != Prompt("a {{  b }}").hash


@pytest.mark.parametrize(("template", "name"), [("{{ customer }}", "'customer'"), ("{{ event.age }}", "'age'")])
def test_a_missing_variable_is_named(template: str, name: str) -> None:
    with pytest.raises(BadInput, match=rf"prompt v1\.md: .*{name}.*; the context has event, row"):
        Prompt(template, "v1.md").messages(CONTEXT)


def test_a_template_that_does_not_parse_is_refused_when_it_is_made() -> None:
    with pytest.raises(BadInput, match=r"prompt v1\.md: "):
        Prompt("{{ event", "v1.md")


def test_a_template_that_fails_on_its_context_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"prompt v1\.md: .*; mend the template"):
        Prompt("{{ event.name + 1 }}", "v1.md").messages(CONTEXT)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"prompt .*none\.md: .*; give the path"):
        Prompt.from_file(tmp_path / "none.md")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ event.__class__ }}",
        "{{ event['__class__'] }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ event.pop('name') }}",
        "{{ event.tags.append(1) }}",
        "{% set _ = event.update(name='x') %}",
        "{% include 'driftline.toml' %}",
        "{% import os %}",
    ],
)
def test_a_template_reaches_nothing_and_changes_nothing_outside_its_context(template: str) -> None:
    with pytest.raises(BadInput):
        Prompt(template).messages(CONTEXT)
    assert CONTEXT["event"] == {"name": "O'Brien", "amount": 4, "tags": ["b", "a"]}


@pytest.mark.parametrize(
    "template",
    ["{{ event.tags | random }}", "{{ lipsum() }}", "{{ event.items }}", "{{ event.tags | map('upper') }}"],
)
def test_what_differs_from_run_to_run_is_refused(template: str) -> None:
    with pytest.raises(BadInput):
        Prompt(template).messages(CONTEXT)


def test_json_is_written_plainly_with_sorted_keys() -> None:
    assert said("{{ event | tojson }}") == """{"amount": 4, "name": "O'Brien", "tags": ["b", "a"]}"""


def test_whatever_a_context_holds_can_be_printed() -> None:
    assert said("{{ none }} {{ true }} {{ 1.5 }} {{ event.tags }} {{ event.tags | join('-') }}") == (
        "None True 1.5 ['b', 'a'] b-a"
    )


def test_a_recording_speaks_its_recorded_messages() -> None:
    messages = [{"role": "user", "content": "2 + 2?"}]
    assert RecordedMessages().messages({"messages": messages}) == messages
