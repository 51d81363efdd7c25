"""The log over SASL/SCRAM and TLS with client certificates: what works, and what is told when it does not."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from tests.integration.conftest import DECIDER, KEY_PASSWORD, OPERATOR, PASSWORDS, Shut

from driftline.consumers.prepare import prepare
from driftline.examples.renewals.app import app as renewals
from driftline.log import GroupConsumer, KafkaReader, Settings, TopicAdmin, TransactionalWriter, clients
from driftline.producers import Publisher
from driftline.producers.renewals import synthetic_renewals
from driftline.schemas import Contracts, EnvironmentUnreachable, KafkaUnreachable, Registry

pytestmark = pytest.mark.integration

EVENTS = 40
SOON_S = 2.0
AN_HOUR_S = 3600.0
DRIFTLINE = Path(sys.executable).with_name("driftline")
MODULE = """
from dataclasses import replace
from driftline.examples.renewals.app import app as renewals
app = replace(renewals, name="{name}")
"""
WRONG = "wrong-and-secret-99"
SECRETS = (*PASSWORDS.values(), KEY_PASSWORD, WRONG)
USER, PASSWORD = "registrar", "p@ss/word:of-it"


def holds_no_secret(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


def driftline(shut: Shut, folder: Path, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **shut.environment(DECIDER, **changed)}
    return subprocess.run(
        [DRIFTLINE, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )


@pytest.fixture
def decider(shut: Shut, app_name: str) -> Settings:
    """Settings of a principal that may do what an app does, and no more."""
    shut.allow("app-user.sh", f"User:{DECIDER}", app_name)
    return shut.settings(DECIDER)


def test_an_app_is_published_decided_and_read_with_the_rights_of_its_own_principal(
    shut: Shut, decider: Settings, app_name: str, tmp_path: Path
) -> None:
    app = replace(renewals, name=app_name)
    prepare(app, decider)
    with Publisher(app.name, app.schemas, decider, source="crm") as publisher:
        for event in synthetic_renewals(EVENTS, 1):
            publisher.publish_event(event)
    (tmp_path / "secured.py").write_text(MODULE.format(name=app_name))

    done = driftline(shut, tmp_path, "run", "secured:app", "--until-end", "--json", "--log-format", "json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["transactions"] > 0
    reader = KafkaReader(decider)
    assert sum(1 for _ in reader.read(reader.span(app.topics.decisions))) == EVENTS
    assert holds_no_secret(done.stdout + done.stderr)


def test_a_wrong_password_is_one_line_and_exit_code_3(shut: Shut, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text(WRONG)
    done = driftline(shut, tmp_path, "topics", "list", KAFKA_PASSWORD_FILE=str(tmp_path / "wrong"))
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert shut.address in line
    assert "uthentication" in line
    assert "DRIFTLINE_KAFKA_PASSWORD_FILE" in line
    assert holds_no_secret(line)


REFUSED: dict[str, Callable[[Shut], dict[str, Any]]] = {
    "a wrong password": lambda shut: {"kafka_password": WRONG},
    "no such user": lambda shut: {"kafka_username": "nobody"},
    "an unknown authority": lambda shut: {"kafka_ca_file": shut.certificates.path("stranger.pem")},
}
WAYS_IN: dict[str, Callable[[Settings], object]] = {
    "a request": lambda settings: TopicAdmin(settings, AN_HOUR_S).partitions(),
    "a read": lambda settings: KafkaReader(settings, AN_HOUR_S).span("any.events"),
    "a group": lambda settings: GroupConsumer(settings, "any", "any.events").open(
        lambda new: None, lambda gone: None
    ),
    "a writer": lambda settings: TransactionalWriter(settings, "any", open_timeout_s=AN_HOUR_S).open(),
}


@pytest.mark.parametrize("changed", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN.keys())
def test_who_is_refused_is_told_after_the_first_try_and_not_after_the_requests_time(
    shut: Shut, way: Callable[[Settings], object], changed: Callable[[Shut], dict[str, Any]]
) -> None:
    """A request may take an hour, and a group's poll tells nothing of it ever."""
    with pytest.raises(KafkaUnreachable, match=r"do not come together.*DRIFTLINE_KAFKA_") as refused:
        way(shut.settings(OPERATOR, **changed(shut)))
    assert holds_no_secret(str(refused.value))


def test_who_was_let_in_once_is_not_tried_again(shut: Shut, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, witness = [], clients._witness

    def counted(settings: Settings, told: list[Any]) -> Any:
        tries.append(settings.kafka_username)
        return witness(settings, told)

    monkeypatch.setattr(clients, "_witness", counted)
    settings = shut.settings(OPERATOR, kafka={"client.id": "not-seen-before"})
    for _ in range(3):
        TopicAdmin(settings).partitions()
    assert tries == [OPERATOR]


WRONGS: dict[str, tuple[Callable[[Shut], dict[str, Any]], str]] = {
    "an authority that did not sign the broker": (
        lambda shut: {"kafka_ca_file": shut.certificates.path("stranger.pem")},
        "certificate verify failed.*DRIFTLINE_KAFKA_CA_FILE",
    ),
    "no certificate of the client's own": (
        lambda shut: {"kafka_cert_file": None, "kafka_key_file": None, "kafka_key_password": None},
        "SSL alert.*DRIFTLINE_KAFKA_CA_FILE and _CERT_FILE",
    ),
    "a listener without TLS": (
        lambda shut: {"bootstrap_servers": shut.inside},
        "(PLAINTEXT|closed by peer).*DRIFTLINE_BOOTSTRAP_SERVERS",
    ),
    "a user that is not there": (lambda shut: {"kafka_username": "nobody"}, "DRIFTLINE_KAFKA_USERNAME"),
}


@pytest.mark.parametrize(("wrong", "told"), WRONGS.values(), ids=WRONGS.keys())
def test_who_is_not_let_in_is_told_why_and_where_to_set_it(
    shut: Shut, wrong: Callable[[Shut], dict[str, Any]], told: str
) -> None:
    settings = shut.settings(OPERATOR, **wrong(shut))
    with pytest.raises(KafkaUnreachable, match=told) as refused:
        TopicAdmin(settings, SOON_S).partitions()
    assert refused.value.exit_code == 3
    assert "\n" not in str(refused.value)
    assert holds_no_secret(str(refused.value))


def test_a_key_that_cannot_be_opened_is_told_without_its_password(shut: Shut) -> None:
    settings = shut.settings(OPERATOR, kafka_key_password=WRONG)
    with pytest.raises(Exception, match=r"ssl\.key") as refused:
        TopicAdmin(settings, SOON_S).partitions()
    assert holds_no_secret(str(refused.value))


class _Guard(BaseHTTPRequestHandler):
    """Stands before the real registry and lets through who knows the password."""

    registry: str

    def do_GET(self) -> None:
        self._pass_on()

    do_POST = do_PUT = do_GET  # noqa: N815 - names that the base class calls

    def _pass_on(self) -> None:
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != wanted:
            self._answer(401, b'{"error_code": 40101, "message": "who are you"}')
            return
        connection = http.client.HTTPConnection(urlsplit(self.registry).netloc, timeout=30)
        connection.request(self.command, self.path, body or None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        self._answer(answer.status, answer.read())
        connection.close()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def guarded(shut: Shut) -> Iterator[str]:
    """Address of the real registry behind TLS and a password."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Guard", (_Guard,), {"registry": shut.registry_url}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shut.certificates.path("broker.pem"), shut.certificates.path("broker.key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}{urlsplit(shut.registry_url).path}"
    server.shutdown()
    server.server_close()
    thread.join()


def guarded_settings(url: str, password: str) -> Settings:
    secret = SecretStr(password)
    return Settings(bootstrap_servers="a:1", registry_url=url, registry_username=USER, registry_password=secret)


def test_a_registry_behind_tls_and_a_password_is_reached_and_tells_neither(
    shut: Shut, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(shut.certificates.path("authority.pem")))
    settings = guarded_settings(guarded, PASSWORD)
    codec = settings.codec(Contracts.load())
    assert codec.registry.subjects() == Registry(shut.registry_url).subjects()
    assert PASSWORD not in repr(settings) + codec.registry.url


def test_a_wrong_password_of_the_registry_is_told_without_it(
    shut: Shut, guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(shut.certificates.path("authority.pem")))
    with pytest.raises(Exception, match="who are you") as refused:
        guarded_settings(guarded, WRONG).codec(Contracts.load()).registry.subjects()
    assert WRONG not in str(refused.value)


def test_a_registry_whose_authority_is_unknown_is_not_spoken_to(guarded: str) -> None:
    with pytest.raises(EnvironmentUnreachable, match="certificate") as refused:
        guarded_settings(guarded, PASSWORD).codec(Contracts.load()).registry.subjects()
    assert PASSWORD not in str(refused.value)
