"""Candidates as a command line names them: each a model with, if it has them, a prompt, parameters and a verifier."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftline.console.common import Log, find_app
from driftline.console.replay_options import LOG_INCUMBENT
from driftline.consumers.artifacts import Artifact
from driftline.consumers.models.sources import is_recorded
from driftline.consumers.prompt import Prompt
from driftline.log import load_settings
from driftline.replay.arms import Candidate
from driftline.replay.plain import plain
from driftline.replay.segment_file import read_artifacts_of_file
from driftline.schemas import BadInput, Contracts, UsageError, canonical_json

PART = re.compile(r", *(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)=")
"""What stands before the value of each part of a candidate."""
NAMES_OF_FILES = ("prompt", "verifier")
HASH_PREFIX = re.compile(r"[0-9a-fA-F]{6,64}")
PROMPT_KIND = "prompt"


@dataclass(frozen=True)
class Parts:
    """What a candidate changes, as the user wrote it; None and nothing are the log's own."""

    model: str | None = None
    prompt: str | None = None
    """Path of a file, or the beginning of the hash of a prompt on the log."""
    parameters: dict[str, object] = field(default_factory=dict)
    verifier: str | None = None
    """Path of a verifier spec."""

    @classmethod
    def parse(cls, text: str, shared: Parts) -> Parts:
        """The parts of `MODEL[,prompt=…][,verifier=…][,NAME=JSON]...`; what it leaves out is the shared one's.

        Raises:
            BadInput: A parameter is not JSON, or a part is there twice.
        """
        first = PART.search(text)
        model, own = text[: first.start()] if first else text, dict[str, Any]()
        if "," in model and not is_recorded(model):
            raise _not_a_part(text, model.index(","))
        end = len(model)
        while end < len(text):
            part = PART.match(text, end)
            if part is None:
                raise _not_a_part(text, end)
            if part["name"] in own:
                raise BadInput(f"--candidate {text}: gives {part['name']} twice", "leave one out")
            own[part["name"]], end = _value(text, part)
        prompt, verifier = own.pop("prompt", shared.prompt), own.pop("verifier", shared.verifier)
        return cls(None if model == LOG_INCUMBENT else model, prompt, {**shared.parameters, **own}, verifier)


def _value(text: str, part: re.Match[str]) -> tuple[Any, int]:
    """The value of a part, and where it ends: a path at the next part, a parameter with its JSON."""
    if part["name"] in NAMES_OF_FILES:
        following = PART.search(text, part.end())
        end = len(text) if following is None else following.start()
        return text[part.end() : end], end
    try:
        return json.JSONDecoder().raw_decode(text, part.end())
    except json.JSONDecodeError:
        raise _not_a_part(text, part.start()) from None


def _not_a_part(text: str, at: int) -> BadInput:
    return BadInput(
        f"--candidate {text}: {text[at:]} is not ,NAME=JSON", "for example --candidate openai/gpt-4o,temperature=0.2"
    )


@dataclass(frozen=True)
class Tried:
    """A candidate, ready to be asked, and what judges it."""

    candidate: Candidate
    verifier: str | None
    """Path of a verifier spec; None for today's rules."""


def tried_of(app: str, segment_file: Path | None, texts: Sequence[str], shared: Parts) -> list[Tried]:
    """The candidates of a command.

    Args:
        app: As the user named it; its log holds prompts.
        segment_file: Holds them in the log's place.
        texts: Each candidate as `--candidate` gives it; none for one that changes what is shared alone.
        shared: What `--prompt`, `--param` and `--verifier` give to all.

    Raises:
        UsageError: A candidate changes nothing, or its model has no provider.
        BadInput: A part has another form, or a prompt is not to be had.
    """
    every = [Parts.parse(text, shared) for text in texts] or [shared]
    prompts = _Prompts(app, segment_file)
    found: dict[str, Tried] = {}
    for one in every:
        prompt = prompts.named(one.prompt)
        if one.verifier is not None and not (one.model or prompt or one.parameters):
            mend = "judge the log's own answers by it with --mode verify --verifier FILE"
            raise UsageError("the candidate changes nothing but the verifier", mend)
        plan = canonical_json([one.model, prompt and prompt.hash, plain(one.parameters), one.verifier])
        found.setdefault(plan, Tried(Candidate(one.model, prompt, one.parameters), one.verifier))
    return list(found.values())


class _Prompts:
    """Finds prompts: files first, then what lies on the log, or in the segment file, under a hash."""

    def __init__(self, app: str, segment_file: Path | None) -> None:
        self._app = app
        self._segment_file = segment_file
        self._kept: dict[str, Artifact] | None = None

    def named(self, text: str | None) -> Prompt | None:
        """The prompt, None for the log's own.

        Raises:
            BadInput: No file, and no prompt or several of that hash.
        """
        if text is None:
            return None
        if Path(text).exists() or not HASH_PREFIX.fullmatch(text):
            return Prompt.from_file(Path(text))
        kept = {one.hash: one for one in self._all().values() if one.kind == PROMPT_KIND}
        found = [one for hash_, one in kept.items() if hash_.startswith(text.lower())]
        if len(found) != 1:
            own = {hash_: one for hash_, one in kept.items() if one.name.partition("/")[0] == self._app} or kept
            there = ", ".join(f"{hash_[:12]} ({one.name})" for hash_, one in sorted(own.items())) or "none"
            raise BadInput(
                f"{len(found) or 'no'} prompts begin with {text}, and no file has that name",
                f"name one of {there}",
            )
        return Prompt(found[0].content, found[0].name)

    def _all(self) -> dict[str, Artifact]:
        if self._kept is None:
            if self._segment_file is not None:
                self._kept = read_artifacts_of_file(self._segment_file)
            else:
                settings = load_settings()
                app = find_app(self._app, settings)
                self._kept = Log(settings, Contracts.load() if app is None else app.contracts).artifacts
        return self._kept
