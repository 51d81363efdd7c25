"""Writing a run's outputs to the files that a command names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EISDIR
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from driftline.replay.stored import StoredRun


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        BadInput: It cannot be written.
    """
    with _beside(path) as beside:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)


def check_outputs(*paths: Path | None) -> None:
    """Find out, before anything is paid, whether the files could be written; leaves none behind.

    Not guaranteed: that they can be later on, when the folder is gone or the disk is full.

    Args:
        paths: Where outputs will go; None for one that nobody asked for.

    Raises:
        BadInput: One cannot be written.
    """
    for path in paths:
        if path is not None:
            with _beside(path) as beside:
                beside.touch()


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A file to write before it takes the path's place; what is left of it at the end is removed."""
    from driftline.schemas import BadInput

    beside = None
    try:
        if path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        beside = path.with_name(f".{path.name}.writing")
        yield beside
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadInput(f"cannot write {path}: {why}", "give a file name in a folder that is there") from error
    finally:
        if beside is not None:
            with suppress(OSError, ValueError):
                beside.unlink(missing_ok=True)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON for scripts, as `write_text`."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_pages(
    run: StoredRun, html: Path | None, markdown: Path | None, earlier: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write the pages that are asked for; which files these are.

    Args:
        run: As `read_run` finds it.
        html: Where the page goes; None for none.
        markdown: Where the Markdown goes; None for none.
        earlier: The report of the run that this one is shown against.
    """
    from driftline.replay.html import render_html
    from driftline.replay.markdown import render_markdown

    if html is not None:
        write_text(html, render_html(run.report, run.flips, run.segment, earlier))
    if markdown is not None:
        write_text(markdown, render_markdown(run.report, earlier))
    return [path for path in (html, markdown) if path is not None]
