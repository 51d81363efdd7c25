"""What LiteLLM raises, as a `ProposerFailure` or as a mistake of the user's; never with a key in its words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

from driftline.consumers.models.answers import CallFailed, causes
from driftline.consumers.models.retry_after import retry_after_s
from driftline.consumers.proposing import ProposerFailure
from driftline.schemas import UsageError
from driftline.schemas.secrets import remembered_secrets

DETAIL_CHARACTERS_MAX = 240
SECRET_OVERLAP_CHARACTERS = 6
"""A word that shares this many characters in a row with a secret is struck out."""
STRUCK = "[struck out]"
AT_FAULT = frozenset({400, 413, 422})
"""Status codes by which a provider says that the request is wrong, not the provider or the time."""

_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL)(?!.*(DIR|PATH|FILE|URL|HOME)$)", re.IGNORECASE)
_SUSPECT = re.compile(r"sk-|\*{3}|bearer|^(?=.*\d)(?=.*[A-Za-z])[\w\-+/=.]{20,}$", re.IGNORECASE)
_USER_INFO = re.compile(r"://[^/\s@]*@")
_KEYS_OF_QUERY = re.compile(r"([?&][\w-]*(?:key|token|sig\w*)=)[^&\s]*", re.IGNORECASE)
_TYPE_NAMES = re.compile(r"^(?:(?:litellm\.)?\w+(?:Error|Exception)(?: -|:)\s+)+")
_LACKS_KEY = re.compile(r"credentials|api.?key|client option must be set", re.IGNORECASE)


def known_secrets() -> frozenset[str]:
    """Values of the environment whose names speak of a secret, and those that the settings hold."""
    named = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    return frozenset(value for value in named | remembered_secrets() if len(value) >= SECRET_OVERLAP_CHARACTERS)


def safe_line(text: str, secrets: Collection[str]) -> str:
    """The text on one line, short, without any word that is, holds or resembles a key."""
    bare = _KEYS_OF_QUERY.sub(r"\1" + STRUCK, _USER_INFO.sub("://", text))
    line = " ".join(STRUCK if _is_suspect(word, secrets) else word for word in bare.split())
    return line if len(line) <= DETAIL_CHARACTERS_MAX else line[: DETAIL_CHARACTERS_MAX - 1] + "…"


def classify(litellm: Any, error: Exception, model: str, secrets: Collection[str], keyed: bool) -> CallFailed:
    """What became of a call that raised.

    Args:
        litellm: The module.
        error: What it raised.
        model: The model string of the call.
        secrets: What must not be repeated.
        keyed: Whether the call was given a key; else the provider's variable of the environment is missed.

    Raises:
        UsageError: The user named a model, a parameter or a key that the provider does not accept.
    """
    for cause in causes(error):
        if isinstance(cause, CallFailed):
            return cause
        if isinstance(cause, UsageError):
            raise cause from None
    _refuse_mistake(litellm, error, model, secrets, keyed)
    failure = _failure_of(litellm, error)
    return CallFailed(
        failure,
        _describe(error, secrets),
        retry_after_s=retry_after_s(error, lambda: datetime.now(UTC)),
        at_fault=failure is ProposerFailure.PROVIDER_ERROR and getattr(error, "status_code", None) in AT_FAULT,
    )


def unknown_provider(model: str, check: Callable[[], object]) -> UsageError | None:
    """The user's mistake when the provider of a model string cannot be told; None when it can."""
    mistake = UsageError(
        f"no provider is known for the model {model!r}",
        "write provider/name, e.g. openai/gpt-4o, sim/renewals or recorded/<path>#<model>",
    )
    if "/" not in model:
        return mistake
    try:
        check()
    except Exception:  # noqa: BLE001 - LiteLLM raises bare exceptions here
        return mistake
    return None


def _is_suspect(word: str, secrets: Collection[str]) -> bool:
    if _SUSPECT.search(word):
        return True
    size = SECRET_OVERLAP_CHARACTERS
    pieces = {word[at : at + size] for at in range(len(word) - size + 1)}
    return any(piece in secret for secret in secrets for piece in pieces)


def _refuse_mistake(litellm: Any, error: Exception, model: str, secrets: Collection[str], keyed: bool) -> None:
    # `from None` throughout: a provider's own words repeat the key that was sent, and a chain would print them.
    provider = model.partition("/")[0]
    missing = _missing_keys(litellm, model)
    lacks_key = bool(missing) and not keyed and _LACKS_KEY.search(str(error)) is not None
    if isinstance(error, litellm.AuthenticationError) or lacks_key:
        what = f"{provider} refused the call to {model} for want of a valid key"
        raise UsageError(what, f"set {' and '.join(missing) or 'a valid key'} in the environment") from None
    if isinstance(error, (litellm.NotFoundError, litellm.UnsupportedParamsError)):
        what = f"{provider} does not serve {model} as asked: {_describe(error, secrets)}"
        raise UsageError(what, "check the model's name, its parameters, and `api_base` if you gave one") from None


def _missing_keys(litellm: Any, model: str) -> list[str]:
    missing: list[str] = litellm.validate_environment(model)["missing_keys"]
    return [name for name in missing if _SECRET_NAME.search(name)]


def _failure_of(litellm: Any, error: Exception) -> ProposerFailure:
    if isinstance(error, (litellm.Timeout, TimeoutError)):
        return ProposerFailure.TIMEOUT
    if isinstance(error, litellm.RateLimitError):
        return ProposerFailure.RATE_LIMITED
    if isinstance(error, litellm.ContentPolicyViolationError):
        return ProposerFailure.REFUSED
    return ProposerFailure.PROVIDER_ERROR


def _describe(error: Exception, secrets: Collection[str]) -> str:
    status = getattr(error, "status_code", None)
    head = f"{type(error).__name__} {status}" if status else type(error).__name__
    words = _TYPE_NAMES.sub("", str(error).partition("\nTraceback ")[0])
    return safe_line(f"{head}: {words}" if words else head, secrets)
