"""Prompts: templates with a hash, rendered over exactly the context that the decision records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from jinja2 import StrictUndefined, TemplateError, TemplateRuntimeError, Undefined, UndefinedError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from driftline.consumers.proposing import Message
from driftline.schemas import BadInput, content_hash

USER_MARK = re.compile(r"^---user---[ \t]*$\n?", re.MULTILINE)
"""The line that parts the system message from the user message."""
_PRINTABLE = (str, int, float, list, tuple, dict, Undefined, type(None))
"""What may stand in a message. Anything else (a function, a generator) prints its address in memory."""


class MessageSource(Protocol):
    """Turns a context into the chat that a model sees."""

    @property
    def hash(self) -> str:
        """Hash of the template."""

    @property
    def text(self) -> str:
        """The template as it stands."""

    def messages(self, context: Mapping[str, Any]) -> list[Message]:
        """The chat for a context."""


@dataclass(frozen=True)
class Prompt:
    """A Jinja2 template: a system part, the line `---user---`, a user part; without the line all is the user part.

    The sandbox has no clock and no randomness: equal contexts give equal messages. `tojson` writes plain JSON with
    sorted keys, without the escapes that HTML needs.

    Raises:
        BadInput: The template does not parse.
    """

    text: str
    name: str = "prompt"

    @classmethod
    def from_file(cls, path: Path) -> Prompt:
        """Read a template from a UTF-8 file.

        Raises:
            BadInput: No such file, or not a template.
        """
        try:
            return cls(path.read_text(encoding="utf-8"), path.name)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"prompt {path}: {error}", "give the path of a UTF-8 text file") from error

    def __post_init__(self) -> None:
        _ = self._templates

    @cached_property
    def hash(self) -> str:
        """Hash of the template's text."""
        return content_hash(self.text)

    def messages(self, context: Mapping[str, Any]) -> list[Message]:
        """The chat for a context.

        Raises:
            BadInput: The template needs a variable that the context lacks, or fails on those that it has.
        """
        try:
            rendered = [(role, self._constants.get(role) or t.render(context)) for role, t in self._templates]
        except UndefinedError as error:
            raise BadInput(f"prompt {self.name}: {error.message}", "the context has " + ", ".join(context)) from error
        except Exception as error:
            raise BadInput(f"prompt {self.name}: {error}", "mend the template") from error
        return [{"role": role, "content": content} for role, content in rendered]

    @cached_property
    def _constants(self) -> dict[str, str]:
        """The parts that name no variable, rendered once: in the sandbox they can be nothing else next time."""
        environment, found = _sandbox(), {}
        for (role, template), part in zip(self._templates, self._parts, strict=True):
            if not find_undeclared_variables(environment.parse(part)):
                found[role] = template.render()
        return found

    @property
    def _parts(self) -> list[str]:
        return [part.strip("\n") for part in USER_MARK.split(self.text, maxsplit=1)]

    @cached_property
    def _templates(self) -> list[tuple[str, Any]]:
        environment, parts = _sandbox(), self._parts
        roles = ("system", "user") if len(parts) == 2 else ("user",)
        try:
            templates = [environment.from_string(part) for part in parts]
        except TemplateError as error:
            raise BadInput(f"prompt {self.name}: {error}", "mend the template") from error
        for template in templates:
            template.globals = dict(template.globals)  # a ChainMap is copied in Python at every rendering
        return list(zip(roles, templates, strict=True))


class RecordedMessages:
    """The prompt of an imported decision: its recorded messages, as they stand in the context."""

    text = "{{ messages }}"
    hash = content_hash(text)

    def messages(self, context: Mapping[str, Any]) -> list[Message]:
        """The recorded chat."""
        return list(context["messages"])


def _sandbox() -> ImmutableSandboxedEnvironment:
    """An environment in which a template sees its context and nothing that differs from run to run."""
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, trim_blocks=True, finalize=_finalize
    )
    del environment.filters["random"], environment.globals["lipsum"]
    environment.filters["tojson"] = _to_json
    return environment


def _finalize(value: Any) -> Any:
    if isinstance(value, _PRINTABLE):
        return value
    raise TemplateRuntimeError(f"a {type(value).__name__} cannot stand in a message")


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent)
