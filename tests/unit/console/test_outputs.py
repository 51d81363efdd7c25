"""Files that a command is to write: what cannot be written is one line, and is told before anything is paid."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.console.outputs import check_outputs, write_text
from driftline.schemas import BadInput

WRONG = ["", ".", "..", "/", "nowhere/a.html", "file/x.html", "n" * 250, "n" * 300, "nul\x00.html"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    return tmp_path


@pytest.mark.parametrize("name", WRONG)
def test_a_path_that_cannot_be_written_is_bad_input_and_leaves_nothing(name: str, folder: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot write .*; give a file name in a folder that is there"):
        write_text(Path(name), "text")
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("name", WRONG)
def test_such_a_path_is_found_before_there_is_anything_to_write(name: str, folder: Path) -> None:
    with pytest.raises(BadInput, match="cannot write"):
        check_outputs(None, folder / "good.html", Path(name))
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_check_leaves_what_lies_there_as_it_is(folder: Path) -> None:
    check_outputs(folder / "file", None)
    assert (folder / "file").read_text() == "kept"
    write_text(folder / "file", "new")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("file", "new")]
