"""What a model wrote is shown and not obeyed."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from driftline.replay.visible import visible


def test_controls_are_escapes_and_line_and_tab_are_themselves() -> None:
    assert visible("a\x1b[2J\x00\r\x7f\x9b\u202e\u2066b\n\tc") == "a\\x1b[2J\\x00\\x0d\\x7f\\x9b\\u202e\\u2066b\n\tc"


def test_what_is_no_control_passes_as_it_is() -> None:
    text = "größer \N{RIGHT-TO-LEFT MARK}שלום 👩‍💻 C:\\x1b\n"
    assert visible(text) == text


@given(st.text())
def test_no_text_keeps_a_control_or_a_turn_of_order(text: str) -> None:
    shown = visible(text).replace("\n", "").replace("\t", "")
    assert not [one for one in shown if unicodedata.category(one) == "Cc" or unicodedata.bidirectional(one) in TURNS]


TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
