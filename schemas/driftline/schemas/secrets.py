"""Secrets that this process was given: what logs strike out.

The environment's are found there by their names; these came from a file, a configuration or a caller.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_PASSWORDS = re.compile(r"//[^/:@,\s]*:([^/@,\s]+)@")

_remembered: set[str] = set()


def remember_secret(value: str) -> None:
    """Let a value be struck out of what is logged from now on."""
    if value:
        _remembered.add(value)


def remembered_secrets() -> frozenset[str]:
    """Every secret that was remembered in this process."""
    return frozenset(_remembered)


def passwords_in(url: str) -> list[str]:
    """The passwords in the addresses of a list, as they stand and decoded."""
    found = _PASSWORDS.findall(url)
    return [*found, *map(unquote, found)]
