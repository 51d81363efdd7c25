"""Policy rules: deterministic code of the app, with declared versions and parameters from a file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from driftline.consumers.judging import Case, Proposal
from driftline.schemas import BadInput, Rejection, RejectionCode, UsageError, canonical_json, content_hash

Rule = Callable[[Proposal, Mapping[str, Any], Mapping[str, Any]], "Refusal | None"]
"""A policy rule: (proposal, context, parameters of the policy file) to a refusal or None."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a policy rule objects to; the rule's id and version are added for it."""

    path: str
    """JSON Pointer into the payload; empty for the whole."""
    expected: str
    """What would pass."""
    actual: str
    """What was proposed."""
    message: str
    """One sentence."""
    retryable: bool = True
    """Whether another attempt can mend it."""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule with its declared identity."""

    id: str
    version: str
    check: Rule


def rule(rule_id: str, version: str) -> Callable[[Rule], PolicyRule]:
    """Declare a policy rule; raise the version when its meaning changes.

    Example:
        >>> @rule("discount-cap", version="1")
        ... def discount_cap(proposal, context, policy): ...
    """
    return lambda check: PolicyRule(rule_id, version, check)


@dataclass(frozen=True)
class Policy:
    """Versioned deterministic rules with their parameters from a TOML file.

    Args:
        rules: Checked in order; every refusal is reported.
        text: The policy file's content.
    """

    rules: Sequence[PolicyRule]
    text: str = ""

    @classmethod
    def from_file(cls, path: Path, *rules: PolicyRule) -> Policy:
        """Rules with the parameters of a TOML file.

        Raises:
            BadInput: No such file, or not TOML.
        """
        try:
            policy = cls(rules, path.read_text(encoding="utf-8"))
            _ = policy.parameters
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"policy {path}: {error}", "give the path of a TOML file") from error
        return policy

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The policy file as data."""
        return tomllib.loads(self.text)

    @cached_property
    def content(self) -> str:
        """Canonical JSON of the file's text and the rules' declared identities: all that the version depends on."""
        return canonical_json([self.text, [[one.id, one.version] for one in self.rules]])

    @cached_property
    def version(self) -> str:
        """Hash of `content`."""
        return content_hash(self.content)

    def verify(self, proposal: Proposal, case: Case) -> list[Rejection]:
        """One rejection for each rule that refuses.

        Raises:
            UsageError: A rule raised: the decision stops here, since neither yes nor no was said.
        """
        found = []
        for one in self.rules:
            refusal = self._check(one, proposal, case)
            if refusal is not None:
                found.append(_rejection(one, refusal))
        return found

    def _check(self, one: PolicyRule, proposal: Proposal, case: Case) -> Refusal | None:
        try:
            return one.check(proposal, case.context, self.parameters)
        except Exception as error:
            raise UsageError(
                f"the policy rule {one.id} fails on a {proposal.type}: {error!r}",
                "mend the rule, or the policy file whose parameters it reads",
            ) from error


def _rejection(one: PolicyRule, refusal: Refusal) -> Rejection:
    return Rejection(
        code=RejectionCode.POLICY_VIOLATION,
        path=f"/payload{refusal.path}",
        expected=refusal.expected,
        actual=refusal.actual,
        rule_id=one.id,
        rule_version=one.version,
        retryable=refusal.retryable,
        message=refusal.message,
    )
