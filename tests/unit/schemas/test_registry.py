"""The registry's client: what is registered in which order, and one typed error for each way to fail."""

import json
import socket
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from driftline.schemas import (
    Codec,
    Contract,
    ContractError,
    Contracts,
    DriftlineError,
    Registry,
    RegistryUnreachable,
    Undecodable,
    UndecodableReason,
    UsageError,
)
from driftline.schemas.registry import record_of, subject_name
from driftline.schemas.wire import HEADER

SUBJECT = "shop.events-shop.Order"
FULL = "FULL_TRANSITIVE"


def order(*names: str) -> dict[str, Any]:
    fields = [{"name": name, "type": "string", "default": ""} for name in names]
    return {"type": "record", "name": "shop.Order", "fields": fields}


ONE = Contract("shop.Order", [order()])
TWO = Contract("shop.Order", [order(), order("tier")])


def test_a_subject_names_topic_and_record() -> None:
    assert subject_name("shop-eu.events", "shop.Order") == "shop-eu.events-shop.Order"
    assert record_of("shop-eu.events-shop.Order") == "shop.Order"


def test_nothing_is_asked_before_the_first_call() -> None:
    Codec(Registry("http://203.0.113.1:1"), Contracts([ONE]))


def test_all_versions_are_registered_in_order_and_the_latest_id_is_given() -> None:
    registry = Registry("mock://")
    latest = registry.ensure("shop.events", TWO)
    assert registry.versions(SUBJECT) == [1, 2]
    assert [found.schema for found in registry.registered(SUBJECT)] == list(TWO.versions)
    assert registry.schema(latest) == TWO.latest
    assert registry.resolve("shop.events", TWO) == latest


def test_to_ensure_again_registers_nothing() -> None:
    registry = Registry("mock://")
    assert registry.ensure("shop.events", TWO) == registry.ensure("shop.events", TWO)
    assert registry.subjects() == [SUBJECT]
    assert registry.versions(SUBJECT) == [1, 2]


def test_one_record_in_two_topics_is_two_subjects() -> None:
    registry = Registry("mock://")
    registry.ensure("b", ONE)
    registry.ensure("a", ONE)
    assert registry.subjects() == ["a-shop.Order", "b-shop.Order"]


def test_to_resolve_what_is_not_there_names_the_command_that_registers_it() -> None:
    with pytest.raises(ContractError, match=r"run `driftline schemas register`"):
        Registry("mock://").resolve("shop.events", ONE)


def test_what_is_not_there_is_none_and_no_error() -> None:
    registry = Registry("mock://")
    assert registry.schema(4711) is None
    assert registry.versions("nowhere") == []
    assert registry.registered("nowhere") == []


@pytest.mark.parametrize(
    "address",
    ["//user:s3cret@", "//s3cret@", "//user:a/s3cret@", "//user:p@s3cret@", "//user:p,s3cret@", "//user:p s3cret@"],
)
def test_credentials_in_the_address_are_used_and_never_told(serve: Any, fake_registry: Any, address: str) -> None:
    url = serve(fake_registry)
    fake_registry.refuse = {json.dumps(ONE.latest): (422, {"error_code": 42201, "message": "no"})}
    told = []
    for base in (url, "http://127.0.0.1:1", "ftp://127.0.0.1"):
        registry = Registry(base.replace("//", address), retries_max=0)
        with pytest.raises(DriftlineError) as caught:
            registry.ensure("shop.events", ONE)
        told += [str(caught.value), repr(caught.value), repr(registry), registry.url]
    assert "s3cret" not in " ".join(told)
    assert all("//***@127.0.0.1" in text for text in told[3::4])


def test_credentials_in_the_address_reach_the_registry(serve: Any, fake_registry: Any) -> None:
    url = serve(fake_registry).replace("//", "//user:s3cret@")
    assert Registry(url).subjects() == []
    assert fake_registry.asked == [("GET", "/subjects")]
    assert fake_registry.authorizations == ["Basic " + b64encode(b"user:s3cret").decode()]


def test_an_id_is_asked_for_once(serve: Any, fake_registry: Any) -> None:
    registry = Registry(serve(fake_registry))
    registry.ensure("shop.events", TWO)
    asked = len(fake_registry.asked)
    registry.ensure("shop.events", TWO)
    assert len(fake_registry.asked) == asked


def test_the_level_is_in_force_before_anything_is_registered(serve: Any, fake_registry: Any) -> None:
    Registry(serve(fake_registry)).ensure("shop.events", TWO)
    writes = [path for method, path in fake_registry.asked if method == "PUT" or path.endswith("/versions")]
    assert writes == [f"/config/{SUBJECT}", f"/subjects/{SUBJECT}/versions", f"/subjects/{SUBJECT}/versions"]
    assert fake_registry.levels[SUBJECT] == FULL


@pytest.mark.parametrize("theirs", [{}, {SUBJECT: "NONE"}], ids=["no level of its own", "another level"])
def test_a_subject_that_somebody_else_made_gets_the_level_too(serve: Any, fake_registry: Any, theirs: Any) -> None:
    url = serve(fake_registry)
    fake_registry.schemas, fake_registry.subjects = [json.dumps(ONE.latest)], {SUBJECT: [1]}
    fake_registry.levels |= theirs
    assert Registry(url).ensure("shop.events", ONE) == 1
    assert fake_registry.levels[SUBJECT] == FULL


@pytest.mark.parametrize("where", ["", SUBJECT])
def test_where_the_level_is_in_force_already_no_right_to_set_it_is_needed(
    serve: Any, fake_registry: Any, where: str
) -> None:
    fake_registry.levels[where] = FULL
    Registry(serve(fake_registry)).ensure("shop.events", ONE)
    assert "PUT" not in {method for method, _ in fake_registry.asked}


@pytest.mark.parametrize("status", [409, 422])
def test_a_refused_version_is_named_and_the_earlier_ones_stand(serve: Any, fake_registry: Any, status: int) -> None:
    url = serve(fake_registry)
    fake_registry.refuse = {json.dumps(TWO.latest): (status, {"error_code": status, "message": "/fields/0 breaks"})}
    with pytest.raises(ContractError, match=rf"refuses version 2 of {SUBJECT}: /fields/0 breaks") as caught:
        Registry(url).ensure("shop.events", TWO)
    assert "driftline schemas check" in str(caught.value)
    assert fake_registry.subjects == {SUBJECT: [1]}


def test_a_schema_that_is_another_than_the_packaged_one_stops_the_start(serve: Any, fake_registry: Any) -> None:
    url = serve(fake_registry)
    fake_registry.schemas, fake_registry.subjects = [json.dumps(ONE.latest)], {SUBJECT: [1]}
    registry = Registry(url)
    with pytest.raises(ContractError, match="does not hold the packaged version"):
        registry.resolve("shop.events", TWO)


CALLS: dict[str, Callable[[Registry], Any]] = {
    "ensure": lambda registry: registry.ensure("shop.events", ONE),
    "resolve": lambda registry: registry.resolve("shop.events", ONE),
    "schema": lambda registry: registry.schema(1),
    "subjects": lambda registry: registry.subjects(),
    "versions": lambda registry: registry.versions(SUBJECT),
    "registered": lambda registry: registry.registered(SUBJECT),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
@pytest.mark.parametrize(
    "answer",
    [
        (500, {"error_code": 50001, "message": "the store is down"}),
        (502, "<html>Bad gateway</html>"),
        (503, ""),
        (429, {"error_code": 429, "message": "slow down"}),
        (404, "<html>Not found</html>"),
        (404, {"title": "no such path", "status": 404}),
        (301, ""),
        (200, "<html>Welcome</html>"),
        (200, {"hello": "world"}),
    ],
    ids=lambda answer: f"{answer[0]} {answer[1]}",
)
def test_an_answer_that_is_no_registrys_is_unreachable_and_poisons_nothing(
    serve: Any, call: Callable[[Registry], Any], answer: Any
) -> None:
    registry = Registry(serve(lambda *_: answer), retries_max=0)
    with pytest.raises(RegistryUnreachable) as caught:
        call(registry)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert "driftline registry start" in str(caught.value)


@every_call
def test_a_closed_port_is_unreachable(call: Callable[[Registry], Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RegistryUnreachable, match=f"no schema registry answers at http://127.0.0.1:{port}"):
        call(Registry(f"http://127.0.0.1:{port}", retries_max=0))


@every_call
def test_a_registry_that_never_answers_is_unreachable_within_its_timeout(
    serve: Any, call: Callable[[Registry], Any]
) -> None:
    with pytest.raises(RegistryUnreachable):
        call(Registry(serve(lambda *_: None), timeout_s=0.05, retries_max=1))


def test_a_registry_that_answers_at_the_second_try_is_reached(serve: Any, fake_registry: Any) -> None:
    down = iter([(503, ""), (503, "")])
    url = serve(lambda *request: next(down, None) or fake_registry(*request))
    assert Registry(url, retries_max=2).subjects() == []


@every_call
@pytest.mark.parametrize("status", [401, 403])
def test_a_registry_that_says_no_is_quoted(serve: Any, call: Callable[[Registry], Any], status: int) -> None:
    url = serve(lambda *_: (status, {"error_code": status, "message": "not you"}))
    with pytest.raises(ContractError, match=r"refuses .*not you"):
        call(Registry(url))


@pytest.mark.parametrize("url", ["", "localhost:8081", "ftp://localhost"])
def test_an_address_that_is_none_is_the_users_to_mend(url: str) -> None:
    with pytest.raises(UsageError, match="it begins with http"):
        Registry(url).subjects()


def test_a_record_that_comes_while_the_registry_is_down_can_be_read_later(serve: Any, fake_registry: Any) -> None:
    up = False
    url = serve(lambda *request: fake_registry(*request) if up else (503, ""))
    fake_registry.schemas = [json.dumps(ONE.latest)]
    codec = Codec(Registry(url, retries_max=0), Contracts([ONE]))
    with pytest.raises(RegistryUnreachable):
        codec.decode(HEADER.pack(0, 1))
    up = True
    assert codec.decode(HEADER.pack(0, 1)).value == {}


def test_only_an_id_that_the_registry_denies_is_poison(serve: Any, fake_registry: Any) -> None:
    codec = Codec(Registry(serve(fake_registry)), Contracts([ONE]))
    with pytest.raises(Undecodable) as caught:
        codec.decode(HEADER.pack(0, 4711))
    assert caught.value.reason is UndecodableReason.UNKNOWN_SCHEMA_ID
