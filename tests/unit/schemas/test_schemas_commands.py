"""`driftline schemas`: what a person reads, what a script reads, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from driftline.console.schemas_commands import schemas_app
from driftline.schemas import Contracts, DriftlineError

ID = {"name": "id", "type": "string", "doc": "Order number."}
TIER = {"name": "tier", "type": "string", "default": "basic"}
VAT = {"name": "vat", "type": "int"}
OWN = len(Contracts.load())
PADDED = "shop.Order".ljust(max(map(len, Contracts.load())))
"""As wide as the longest name of the list."""
SUBJECT = "shop.events-shop.Order"


def record(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "namespace": "shop", "name": "Order", "fields": list(fields)}


def write(folder: Path, *versions: Any, name: str = "shop.Order") -> str:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number, schema in enumerate(versions, 1):
        (folder / name / f"{number}.avsc").write_text(json.dumps(schema))
    return str(folder)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(schemas_app, arguments)


def refused(*arguments: str) -> str:
    """The one line that the command line prints for an error that the user can mend."""
    error = run(*arguments).exception
    assert isinstance(error, DriftlineError), error
    assert "\n" not in str(error)
    return str(error)


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder and no address in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DRIFTLINE_REGISTRY_URL", raising=False)


def test_check_says_ok_for_each_contract_and_ends_with_0(tmp_path: Path) -> None:
    result = run("check", "--schemas", write(tmp_path / "s", record(ID), record(ID, TIER)))
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == OWN + 1
    assert lines[-1].split() == ["ok", "shop.Order", "2", "versions"]


def test_check_names_the_field_of_a_break_and_ends_with_2(tmp_path: Path) -> None:
    result = run("check", "--schemas", write(tmp_path / "s", record(ID), record(ID, VAT)))
    assert result.exit_code == 2
    assert result.output.splitlines()[-2:] == [
        f"breaks  {PADDED}  2 versions",
        "        shop.Order: version 2 cannot read version 1: field vat: it was not written and has no default",
    ]


def test_check_tells_a_script_the_same(tmp_path: Path) -> None:
    result = run("check", "--json", "--schemas", write(tmp_path / "s", record(ID), record(ID, VAT)))
    said = json.loads(result.output)
    assert (result.exit_code, said["full_transitive"]) == (2, False)
    assert [contract["record"] for contract in said["contracts"] if contract["breaks"]] == ["shop.Order"]


def test_check_of_several_folders_takes_them_all(tmp_path: Path) -> None:
    other = {**record(ID), "name": "Refund"}
    folders = (write(tmp_path / "a", record(ID)), write(tmp_path / "b", other, name="shop.Refund"))
    result = run("check", *(word for folder in folders for word in ("--schemas", folder)))
    assert len(result.output.splitlines()) == OWN + 2


def test_check_of_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "no schema folder at" in refused("check", "--schemas", str(tmp_path / "nowhere"))


def test_check_asks_no_registry_unless_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", "http://127.0.0.1:9")
    assert run("check").exit_code == 0


def test_check_against_a_registry_names_what_is_not_beside_the_code(
    tmp_path: Path, serve: Any, fake_registry: Any
) -> None:
    url = serve(fake_registry)
    fake_registry.schemas = [json.dumps(record(ID)), json.dumps(record(ID, VAT))]
    fake_registry.subjects = {SUBJECT: [1, 2], "other-shop.Refund": [1]}
    result = run("check", "--registry", url, "--schemas", write(tmp_path / "s", record(ID)))
    assert result.exit_code == 2
    assert [line.strip() for line in result.output.splitlines()[-4:]] == [
        f"breaks  {PADDED}  1 version",
        f"registry: {SUBJECT}: its latest is not the packaged version",
        f"registry: {SUBJECT}: version 2 is not beside the code",
        f"shop.Order: {SUBJECT} 2 cannot read version 1: field vat: it was not written and has no default",
    ]


def test_register_for_a_topic_takes_every_record_of_the_folder(
    tmp_path: Path, serve: Any, fake_registry: Any
) -> None:
    folder = write(tmp_path / "s", record(ID), record(ID, TIER))
    result = run("register", "--topic", "shop.events", "--schemas", folder, "--registry", serve(fake_registry))
    assert result.output == f"{SUBJECT}  version 2  id 2\n"
    assert fake_registry.subjects == {SUBJECT: [1, 2]}
    assert fake_registry.levels[SUBJECT] == "FULL_TRANSITIVE"


def test_register_takes_the_records_that_are_named(serve: Any, fake_registry: Any) -> None:
    url = serve(fake_registry)
    records = ("--record", "driftline.Decision", "--record", "driftline.Row")
    assert run("register", "--topic", "shop.x", *records, "--registry", url).exit_code == 0
    assert list(fake_registry.subjects) == ["shop.x-driftline.Decision", "shop.x-driftline.Row"]


def test_register_for_an_app_takes_every_subject_of_it(
    tmp_path: Path, serve: Any, fake_registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s", record(ID))
    (tmp_path / "a_shop_to_register.py").write_text(
        "from pathlib import Path\n"
        "from driftline.consumers.app import App\n"
        "app = App(name='shop', boundaries=(), schemas=Path('s'), facts=('shop.Order',))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = run("register", "--app", "a_shop_to_register:app", "--json", "--registry", serve(fake_registry))
    assert result.exit_code == 0, result.exception
    assert [row["subject"] for row in json.loads(result.output)["registered"]] == list(fake_registry.subjects)
    assert {SUBJECT, "shop.decisions-driftline.Decision"} <= set(fake_registry.subjects)


def test_register_of_a_breaking_contract_registers_nothing_at_all(
    tmp_path: Path, serve: Any, fake_registry: Any
) -> None:
    fine = {**record(ID), "name": "A"}
    write(tmp_path / "s", fine, name="shop.A")
    folder = write(tmp_path / "s", record(ID), record(ID, VAT))
    line = refused("register", "--topic", "t", "--schemas", folder, "--registry", serve(fake_registry))
    assert line.startswith("nothing registered: shop.Order: version 2 cannot read version 1: field vat")
    assert fake_registry.asked == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either --app or --topic"),
        (("--app", "m:a", "--topic", "t"), "either --app or --topic"),
        (("--topic", "t"), "which records to register for t"),
        (("--topic", "t", "--record", "shop.Ordre"), "no contract for the record shop.Ordre"),
        (("--app", "nobody"), "write it as module:attribute"),
        (("--app", "no_such_module:app"), "No module named"),
    ],
)
def test_register_says_what_it_lacks(arguments: tuple[str, ...], said: str) -> None:
    assert said in refused("register", *arguments, "--registry", "http://127.0.0.1:9")


def test_list_shows_versions_ids_and_whether_the_latest_is_the_packaged_one(
    tmp_path: Path, serve: Any, fake_registry: Any
) -> None:
    url = serve(fake_registry)
    fake_registry.schemas = [json.dumps(record(ID)), json.dumps(record({**ID, "doc": "Reworded."}, TIER))]
    fake_registry.subjects = {SUBJECT: [1, 2], "old-shop.Order": [1], "x-their.Thing": [1]}
    folder = write(tmp_path / "s", record(ID), record(ID, TIER))
    assert run("list", "--schemas", folder, "--registry", url).output.splitlines() == [
        "old-shop.Order          latest is not the packaged one  1 (id 1)",
        "shop.events-shop.Order  latest is the packaged one  1 (id 1), 2 (id 2)",
        "x-their.Thing           no contract here  1 (id 1)",
    ]


def test_list_tells_a_script_the_same(serve: Any, fake_registry: Any) -> None:
    url = serve(fake_registry)
    run("register", "--topic", "t", "--record", "driftline.Row", "--registry", url)
    said = json.loads(run("list", "--json", "--registry", url).output)
    versions = [{"version": 1, "id": 1}]
    assert said["subjects"] == [{"subject": "t-driftline.Row", "versions": versions, "latest_is_packaged": True}]


@pytest.mark.parametrize("command", [("list",), ("register", "--topic", "t", "--record", "driftline.Row")])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_credentials_of_the_registry_are_not_printed(
    serve: Any, fake_registry: Any, command: tuple[str, ...], form: tuple[str, ...]
) -> None:
    url = serve(fake_registry).replace("//", "//user:s3cret@")
    result = run(*command, *form, "--registry", url)
    assert result.exit_code == 0, result.exception
    assert "s3cret" not in result.output
    assert "s3cret" not in refused(*command, *form, "--registry", "http://user:s3cret@127.0.0.1:1")


def test_list_of_an_empty_registry_says_how_to_fill_it(serve: Any, fake_registry: Any) -> None:
    assert "run `driftline schemas register`" in run("list", "--registry", serve(fake_registry)).output


def test_the_registry_of_the_environment_is_used(
    serve: Any, fake_registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", serve(fake_registry))
    assert run("list").exit_code == 0
    assert fake_registry.asked == [("GET", "/subjects")]


def test_the_local_registry_is_used_where_nothing_else_is_said(
    tmp_path: Path, serve: Any, fake_registry: Any
) -> None:
    (tmp_path / ".driftline").mkdir()
    (tmp_path / ".driftline" / "local.json").write_text(json.dumps({"registry_url": serve(fake_registry)}))
    assert run("list").exit_code == 0


def test_without_any_registry_the_line_says_how_to_get_one() -> None:
    assert "driftline registry start" in refused("list")


def test_help_needs_neither_the_registry_client_nor_avro() -> None:
    code = (
        "import sys, driftline.console.schemas_commands\n"
        "heavy = {'confluent_kafka', 'fastavro', 'avro', 'pydantic', 'driftline.schemas'} & sys.modules.keys()\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
