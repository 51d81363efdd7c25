"""Text that others wrote, shown where what it says must not act: a terminal, a Markdown block."""

from __future__ import annotations

import re

_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""C0 but newline and tab, DEL, C1, and the controls that turn the order of what is read (Unicode TR 9)."""


def visible(text: object) -> str:
    r"""The text with every control character as an escape: ESC is shown as `\x1b`, U+202E as `\u202e`.

    Newline and tab stay. Not guaranteed: that what is shown tells the text; a backslash stays as it is.
    """
    return _ACTING.sub(lambda found: _escape(ord(found[0])), str(text))


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
