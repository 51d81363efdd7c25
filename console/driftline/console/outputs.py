"""Writing a run's outputs to the files that a command names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from driftline.replay.stored import StoredRun


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        BadInput: It cannot be written.
    """
    from driftline.schemas import BadInput

    beside = path.with_name(f".{path.name}.writing")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BadInput(f"cannot write {path}: {error.strerror}", "give a path in a folder that is there") from error


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
