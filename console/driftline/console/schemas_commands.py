"""`driftline schemas`: check, register and list the contracts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from driftline.schemas import Contract, Contracts, Registry
    from driftline.schemas.registry import Registered

EXIT_BREAKS = 2

schemas_app = typer.Typer(
    help="The contracts: check their evolution, register them, list what the registry holds.", no_args_is_help=True
)

Folders = Annotated[
    list[Path] | None, typer.Option("--schemas", help="A folder of <record name>/<version>.avsc; repeatable.")
]
RegistryUrl = Annotated[
    str | None, typer.Option("--registry", help="Registry to use; else DRIFTLINE_REGISTRY_URL, else the local one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")]


@schemas_app.command("check", epilog="Example: driftline schemas check --schemas myapp/schemas")
def check(
    schemas: Folders = None,
    registry: Annotated[
        str | None, typer.Option("--registry", help="Also compare with what is registered there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that every version of every contract reads every other one (FULL_TRANSITIVE). Exits 2 if one does not.

    driftline's own contracts are always checked too. Nothing is written, and no registry is asked without --registry.
    """
    contracts = _load(schemas)
    held = _connect(registry) if registry else None
    reports = [_report(contract, held) for contract in contracts.values()]
    broken = any(_breaks_in(report) for report in reports)
    _show({"full_transitive": not broken, "contracts": reports}, _check_lines(reports), as_json)
    if broken:
        raise typer.Exit(EXIT_BREAKS)


@schemas_app.command("register", epilog="Example: driftline schemas register --app myapp.app:app")
def register(
    app: Annotated[str | None, typer.Option(help="Register every subject of an app: module:attribute.")] = None,
    topic: Annotated[str | None, typer.Option(help="Register records for this topic.")] = None,
    record: Annotated[
        list[str] | None, typer.Option(help="With --topic: full record name; repeatable. Else all of --schemas.")
    ] = None,
    schemas: Folders = None,
    registry: RegistryUrl = None,
    as_json: AsJson = False,
) -> None:
    """Register contracts under <topic>-<record>, all versions in order, with FULL_TRANSITIVE in force.

    All contracts are checked before the first is registered. To register again changes nothing.
    """
    wanted = _wanted(app, topic, record or [], schemas)
    _refuse_breaks([contract for _, contract in wanted])
    held = _connect(registry)
    done = [_register_one(held, topic, contract) for topic, contract in wanted]
    lines = (f"{row['subject']}  version {row['version']}  id {row['id']}" for row in done)
    _show({"registry": held.url, "registered": done}, lines, as_json)


@schemas_app.command("list", epilog="Example: driftline schemas list --json")
def list_subjects(schemas: Folders = None, registry: RegistryUrl = None, as_json: AsJson = False) -> None:
    """List the registry's subjects with versions and ids, and whether the latest is the contract beside the code."""
    contracts = _load(schemas)
    held = _connect(registry)
    rows = [_listed(subject, held.registered(subject), contracts) for subject in held.subjects()]
    lines = _columns(rows) if rows else iter([f"no subjects at {held.url}; run `driftline schemas register`"])
    _show({"registry": held.url, "subjects": rows}, lines, as_json)


def _load(folders: Sequence[Path] | None) -> "Contracts":
    from driftline.schemas import Contracts

    return Contracts.load(*(folders or ()))


def _connect(url: str | None) -> "Registry":
    from driftline.log.settings import load_settings
    from driftline.schemas import Registry

    return Registry(load_settings(registry_url=url).require_registry())


def _wanted(
    app: str | None, topic: str | None, records: Sequence[str], folders: Sequence[Path] | None
) -> "list[tuple[str, Contract]]":
    """What to register: (topic, contract) each."""
    from driftline.schemas import UsageError

    if (app is None) == (topic is None):
        raise UsageError("say what to register: either --app or --topic", "for example --app myapp.app:app")
    if app is not None:
        return _of_app(app)
    assert topic is not None
    contracts = _load(folders)
    names = records or _names_in(folders or ())
    if not names:
        raise UsageError(f"say which records to register for {topic}", "with --record NAME or --schemas FOLDER")
    return [(topic, contracts.require(name)) for name in names]


def _names_in(folders: Sequence[Path]) -> list[str]:
    """The records that the folders hold, driftline's own left out."""
    from driftline.schemas import Contracts

    own = set(Contracts.load())
    return [name for name in _load(folders) if name not in own]


def _of_app(reference: str) -> "list[tuple[str, Contract]]":
    from driftline.consumers.app import load_app
    from driftline.log.settings import load_settings

    found = load_app(load_settings().apps.get(reference, reference))
    return [(topic, found.contracts.require(record)) for topic, record in found.subjects()]


def _refuse_breaks(contracts: "Sequence[Contract]") -> None:
    from driftline.schemas import ContractError
    from driftline.schemas.evolution import breaks

    found = [broken for contract in contracts for broken in breaks(contract)]
    if found:
        more = f" (and {len(found) - 1} more)" if found[1:] else ""
        raise ContractError(f"nothing registered: {found[0]}{more}", "see `driftline schemas check`")


def _register_one(registry: "Registry", topic: str, contract: "Contract") -> dict[str, Any]:
    from driftline.schemas.registry import subject_name

    schema_id = registry.ensure(topic, contract)
    return {"subject": subject_name(topic, contract.name), "version": len(contract.versions), "id": schema_id}


def _report(contract: "Contract", registry: "Registry | None") -> dict[str, Any]:
    from driftline.schemas.evolution import breaks
    from driftline.schemas.registry import record_of

    subjects = [] if registry is None else [s for s in registry.subjects() if record_of(s) == contract.name]
    return {
        "record": contract.name,
        "versions": len(contract.versions),
        "breaks": [str(broken) for broken in breaks(contract)],
        "subjects": [_compared(s, registry.registered(s), contract) for s in subjects] if registry else [],
    }


def _compared(subject: str, registered: "Sequence[Registered]", contract: "Contract") -> dict[str, Any]:
    """A subject held against its contract: versions that are not beside the code, and what they break."""
    from driftline.schemas.contracts import same_contract
    from driftline.schemas.evolution import breaks_between

    foreign = [r for r in registered if not any(same_contract(r.schema, v) for v in contract.versions)]
    return {
        "subject": subject,
        "latest_is_packaged": bool(registered) and same_contract(registered[-1].schema, contract.latest),
        "not_beside_the_code": [r.version for r in foreign],
        "breaks": [line for r in foreign for line in breaks_between(contract, r.schema, f"{subject} {r.version}")],
    }


def _breaks_in(report: Mapping[str, Any]) -> list[str]:
    return [*report["breaks"], *(line for subject in report["subjects"] for line in subject["breaks"])]


def _check_lines(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    width = max(len(report["record"]) for report in reports)
    for report in reports:
        versions = f"{report['versions']} version{'s' if report['versions'] > 1 else ''}"
        yield f"{'breaks' if _breaks_in(report) else 'ok':6}  {report['record']:{width}}  {versions}"
        yield from (f"        {line}" for line in report["breaks"])
        for subject in report["subjects"]:
            yield from (f"        {line}" for line in _subject_lines(subject))


def _subject_lines(subject: Mapping[str, Any]) -> Iterator[str]:
    name = subject["subject"]
    state = (
        "holds the packaged version" if subject["latest_is_packaged"] else "its latest is not the packaged version"
    )
    yield f"registry: {name}: {state}"
    for version in subject["not_beside_the_code"]:
        yield f"registry: {name}: version {version} is not beside the code"
    yield from subject["breaks"]


def _listed(subject: str, registered: "Sequence[Registered]", contracts: "Contracts") -> dict[str, Any]:
    from driftline.schemas.contracts import same_contract
    from driftline.schemas.registry import record_of

    contract = contracts.get(record_of(subject))
    same = None
    if contract is not None and registered:
        same = same_contract(registered[-1].schema, contract.latest)
    versions = [{"version": found.version, "id": found.schema_id} for found in registered]
    return {"subject": subject, "versions": versions, "latest_is_packaged": same}


def _columns(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    said = {True: "latest is the packaged one", False: "latest is not the packaged one", None: "no contract here"}
    width = max(len(row["subject"]) for row in rows)
    for row in rows:
        versions = ", ".join(f"{v['version']} (id {v['id']})" for v in row["versions"])
        yield f"{row['subject']:{width}}  {said[row['latest_is_packaged']]}  {versions}"


def _show(data: Mapping[str, Any], lines: Iterator[str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    for line in lines:
        typer.echo(line)
