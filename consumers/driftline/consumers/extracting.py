"""Finding an answer in a text: by a regex, or at a JSON Pointer."""

from __future__ import annotations

import json
import re
from typing import Any

from driftline.schemas import parse_json
from driftline.schemas.fields import escape_surrogates

JSON_EXTRACTOR = "json:"
"""An extractor that begins so is a JSON Pointer (RFC 6901) into a text that is JSON as a whole."""
_INDEX = re.compile("0|[1-9][0-9]{0,8}")


def check_extractor(extractor: str) -> None:
    """Prove that an extractor can be used.

    Raises:
        ValueError: A bad regex, one without a group, or a bad pointer.
    """
    if extractor.startswith(JSON_EXTRACTOR):
        if not re.fullmatch(r"(/[^/]*)*", extractor.removeprefix(JSON_EXTRACTOR)):
            raise ValueError(f"{extractor!r} is not json:/Pointer")
    elif compile_regex(extractor).groups < 1:
        raise ValueError(f"the regex {extractor!r} has no group for the answer")


def extract(extractor: str, text: str) -> str | None:
    """The last match of group 1, or the value at the pointer; None where there is none."""
    if extractor.startswith(JSON_EXTRACTOR):
        return _at_pointer(text, extractor.removeprefix(JSON_EXTRACTOR))
    groups = [found.group(1) for found in compile_regex(extractor).finditer(text)]
    return next((group for group in reversed(groups) if group is not None), None)


def _at_pointer(text: str, pointer: str) -> str | None:
    """The value at a JSON Pointer (RFC 6901) of a JSON text, as text; None where there is none."""
    try:
        node = parse_json(text)
    except (ValueError, RecursionError):
        return None
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and _INDEX.fullmatch(key) and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return None if node is None else text_of(node)


def text_of(value: Any) -> str:
    """A JSON value as text: a string as it stands, all else as JSON writes it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return str(escape_surrogates(text))


def compile_regex(pattern: str) -> re.Pattern[str]:
    """A regex.

    Raises:
        ValueError: It is none, in one sentence.
    """
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"bad regex {pattern!r}: {error}") from error
