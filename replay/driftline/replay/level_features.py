"""What an answer is at the levels that decide nothing, as numbers: enough to see how it moved, at little cost.

Both functions look at a bounded part of what a model wrote, and take some tens of microseconds.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any
from zlib import crc32

TEXT_CHARACTERS_MAX = 2_000
"""Of a text; its length is that of all of it."""
WORDS_MAX = 64
WORD_BUCKETS = 16
"""Words are counted by hash: few coordinates, so that what matters is learnt from few events."""
LEAVES_MAX = 64
VALUE_CHARACTERS_MAX = 40
"""Longer values are told apart by hash."""
NUMBER_MAX = 1e15
"""Numbers beyond are held there: a model may write any, and a difference has to be finite."""

_WORD = re.compile(r"\w+")


def text_features(text: str) -> dict[str, float]:
    """Length, lines, white space, code fence, first word, and how often words of each bucket occur."""
    head = text[:TEXT_CHARACTERS_MAX]
    words = [found[0] for found in islice(_WORD.finditer(head), WORDS_MAX)]
    features = {
        "length": math.log1p(len(text)),
        "lines": math.log1p(head.count("\n")),
        "spaces": math.log1p(head.count(" ")),
        "fenced": float(head.lstrip().startswith("```")),
        "outer space": float(head[:1].isspace() or text[-1:].isspace()),
        f"first={_short(words[0]) if words else ''}": 1.0,
    }
    for bucket, count in Counter(_hashed(word) % WORD_BUCKETS for word in words).items():
        features[f"words {bucket}"] = float(count)
    return features


def json_features(value: Any) -> dict[str, float]:
    """Every leaf by JSON Pointer: one-hot by its value, and as a number where it is one."""
    features: dict[str, float] = {}
    for pointer, leaf in islice(_leaves(value), LEAVES_MAX):
        if isinstance(leaf, (int, float)) and not isinstance(leaf, bool):
            number = _held(leaf)
            features[pointer or "/"] = number
            features[f"{pointer}={number!r}"] = 1.0
        else:
            features[f"{pointer}={_short(leaf) if isinstance(leaf, str) else repr(leaf)}"] = 1.0
    return features


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Pointer and value of every leaf, names in sorted order; an empty object or array is a leaf."""
    waiting = [("", value)]
    while waiting:
        pointer, found = waiting.pop()
        if isinstance(found, Mapping) and found:
            waiting.extend((f"{pointer}/{name}", found[name]) for name in sorted(found, reverse=True))
        elif isinstance(found, (list, tuple)) and found:
            waiting.extend(
                (f"{pointer}/{index}", found[index]) for index in reversed(range(min(len(found), LEAVES_MAX)))
            )
        else:
            yield pointer, found


def _held(number: float) -> float:
    return (
        0.0 if isinstance(number, float) and math.isnan(number) else float(max(-NUMBER_MAX, min(NUMBER_MAX, number)))
    )


def _short(text: str) -> str:
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"#{_hashed(text):x}"


def _hashed(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))
