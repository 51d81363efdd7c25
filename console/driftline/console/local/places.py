"""Where the local services live: the home folder, the artifacts, the endpoints file."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from driftline.console.local.errors import LocalServiceError

ARTIFACTS_VARIABLE = "DRIFTLINE_ARTIFACTS"
ENDPOINTS_FILE = "local.json"


def default_home() -> Path:
    """Return the setting `home` (`$DRIFTLINE_HOME`, else `driftline.toml`, else `.driftline`) as an absolute path.

    Raises:
        BadInput: `driftline.toml` is wrong.
    """
    from driftline.log import load_home

    return load_home().absolute()


def default_artifacts() -> Path:
    """Return `$DRIFTLINE_ARTIFACTS`, else `artifacts` in the default home.

    It does not follow the `home` of a single service: services with homes of their own (tests) share the
    downloaded files.
    """
    chosen = os.environ.get(ARTIFACTS_VARIABLE)
    return Path(chosen).absolute() if chosen else default_home() / "artifacts"


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes on `path`; it ends with its holder, however that ends."""
    with _open_lock(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _open_lock(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        raise LocalServiceError(
            f"cannot write to {path.parent}: {error.strerror}; set DRIFTLINE_HOME to a folder of yours"
        ) from error


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step: a reader sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_endpoints(home: Path) -> dict[str, str]:
    """Read where the local services of `home` answer.

    Returns:
        `bootstrap_servers` and `registry_url`, each only where its service was started and not stopped. A
        service that was killed keeps its key: having a key is no proof of an answer. Empty for no file or
        one that is not readable as JSON.
    """
    try:
        found = json.loads((home / ENDPOINTS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def set_endpoint(home: Path, key: str, value: str) -> None:
    """Write one service's key into the endpoints file and leave the others as they are."""
    with file_lock(home / f".{ENDPOINTS_FILE}.lock"):
        _write_endpoints(home, {**read_endpoints(home), key: value})


def drop_endpoint(home: Path, key: str) -> None:
    """Remove one service's key from the endpoints file, and the file with its last key."""
    if not (home / ENDPOINTS_FILE).exists():
        return
    with file_lock(home / f".{ENDPOINTS_FILE}.lock"):
        _write_endpoints(home, {name: url for name, url in read_endpoints(home).items() if name != key})


def _write_endpoints(home: Path, endpoints: Mapping[str, str]) -> None:
    if endpoints:
        write_atomic(home / ENDPOINTS_FILE, json.dumps(endpoints, indent=2, sort_keys=True) + "\n")
    else:
        (home / ENDPOINTS_FILE).unlink(missing_ok=True)
