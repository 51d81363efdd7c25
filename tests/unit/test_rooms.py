"""The import order of the rooms, and the packaging that keeps them one namespace."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "schemas": set[str](),
    "log": {"schemas"},
    "producers": {"log", "schemas"},
    "consumers": {"log", "schemas"},
    "detectors": set[str](),
    "replay": {"consumers", "log", "schemas", "detectors"},
    "console": {"replay", "consumers", "producers", "log", "schemas", "detectors"},
    "examples": {"consumers", "producers", "log", "schemas"},
}
ROOMS = sorted(MAY_IMPORT)
DETECTORS_MAY_USE = {"numpy", "scipy", "driftline"}


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room / "driftline" / room).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the room"
            yield f"{node.module}.{node.names[0].name}" if node.module == "driftline" else str(node.module)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    found = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(room)
        for name in imports(path)
        if name.startswith("driftline.") and name.split(".")[1] not in allowed
    }
    assert not found


def test_detectors_use_numpy_and_scipy_alone() -> None:
    outside = {
        name.split(".")[0]
        for path in modules("detectors")
        for name in imports(path)
        if name.split(".")[0] not in sys.stdlib_module_names
    }
    assert outside <= DETECTORS_MAY_USE


def test_producers_do_not_import_litellm_even_by_way_of_others() -> None:
    code = "import sys, driftline.producers, driftline.producers.renewals; print('litellm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_imports_nothing_heavy() -> None:
    heavy = ("litellm", "confluent_kafka", "duckdb", "numpy", "pydantic", "fastavro", "jinja2")
    code = f"import sys, driftline.console.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_a_source_root_of_the_namespace(room: str) -> None:
    assert not (ROOT / room / "driftline" / "__init__.py").exists()
    assert not (ROOT / room / "__init__.py").exists()
    assert (ROOT / room / "driftline" / room / "py.typed").exists()
    assert (ROOT / room / "README.md").exists()


def test_every_room_is_named_wherever_the_packaging_names_rooms() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(wheel["only-include"]) == [f"{room}/driftline" for room in ROOMS]
    assert sorted(wheel["sources"]) == ROOMS
    assert sorted(wheel["dev-mode-dirs"]) == ROOMS
    assert sorted(project["tool"]["pytest"]["ini_options"]["pythonpath"]) == ROOMS
    assert set(project["tool"]["mypy"]["files"]) == {*ROOMS, "tests", "bench"}
    assert sorted(project["tool"]["mypy"]["mypy_path"]) == ROOMS


def test_the_wheel_holds_every_module_contract_and_pom(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = {
        str(path.relative_to(ROOT / room))
        for room in ROOMS
        for pattern in ("*.py", "*.avsc", "*.md", "*.toml", "*.parquet", "py.typed")
        for path in (ROOT / room / "driftline" / room).rglob(pattern)
    }
    assert wanted <= held
    assert {name for name in held if name.endswith("pom.xml")}
    assert not {name for name in held if name.split("/")[0] in {"tests", "bench", *ROOMS}}


def test_dependencies_are_locked_with_hashes_and_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", lock.partition("\n")[2])
    pinned = [entry for entry in entries if re.match(r"[\w.-]+==", entry)]
    assert len(pinned) > 50
    assert all("--hash=sha256:" in entry for entry in pinned)
    assert "://" not in lock
