"""LiteLLM takes seconds to import: nobody pays for it who does not call a model."""

from __future__ import annotations

import subprocess
import sys

import pytest

from driftline.consumers.models import gateway
from driftline.schemas import UsageError


@pytest.mark.parametrize(
    "module",
    ["driftline.producers.renewals", "driftline.consumers.models.litellm_proposer", "driftline.consumers.models"],
)
def test_importing_does_not_import_litellm(module: str) -> None:
    program = f"import sys; sys.path[:0] = {sys.path!r}; import {module}; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_import_neither_asks_the_network_nor_says_anything() -> None:
    program = f"""
import sys; sys.path[:0] = {sys.path!r}
import socket
def refuse(*_, **__): raise AssertionError("network")
socket.getaddrinfo = socket.create_connection = refuse
import logging; logging.basicConfig(level=logging.DEBUG)
from driftline.consumers.models.gateway import load_litellm
litellm = load_litellm()
assert [item["provider"] for item in litellm.custom_provider_map] == ["recorded", "sim"]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_litellm_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(UsageError, match=r"pip install 'driftline\[llm\]'"):
        gateway.load_litellm.__wrapped__()
