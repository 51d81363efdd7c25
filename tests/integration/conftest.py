"""A Kafka with the door shut: SASL/SCRAM over TLS with client certificates, ACLs in force; and a registry."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from driftline.console.local import LocalKafka, LocalRegistry
from driftline.console.local.kafka import Secured
from driftline.console.local.service import HOST, free_port
from driftline.log import Settings

ACL = Path(__file__).parents[2] / "deploy" / "acl"
OPERATOR, REPLAYER, DECIDER = "operator", "replayer", "decider"
PASSWORDS = {OPERATOR: "operators-own-4711", REPLAYER: "replayers-own-0815", DECIDER: "deciders-own-2342"}
KEY_PASSWORD = "of-the-key-1234"
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


@dataclass(frozen=True)
class Certificates:
    """Made for one session, all in one folder: an authority, what it signed, and an authority that nobody knows."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    def authority(self, name: str) -> None:
        key = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-noenc"]
        self._run("req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", f"/CN={name}", *key)

    def signed(self, name: str, password: str | None = None) -> None:
        lock = ["-noenc"] if password is None else ["-passout", f"pass:{password}"]
        self._run(
            "req", "-newkey", "rsa:2048", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "csr", *lock
        )
        self.path("san").write_text(f"subjectAltName=IP:{HOST},DNS:localhost\n")
        by = ["-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-extfile", "san"]
        self._run("x509", "-req", "-in", "csr", "-days", "2", "-out", f"{name}.pem", *by)

    def _run(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True, timeout=60)


@dataclass(frozen=True)
class Shut:
    """A cluster that lets nobody in who does not prove who they are."""

    home: Path
    address: str
    inside: str
    """The listener of who has the machine: everything is allowed there."""
    registry_url: str
    certificates: Certificates

    def settings(self, user: str, **changed: Any) -> Settings:
        """The settings of a user, as they come from a configuration."""
        path = self.certificates.path
        given = {
            "home": self.home,
            "bootstrap_servers": self.address,
            "registry_url": self.registry_url,
            "partitions": 2,
            "kafka_username": user,
            "kafka_password": PASSWORDS[user],
            "kafka_ca_file": path("authority.pem"),
            "kafka_cert_file": path("client.pem"),
            "kafka_key_file": path("client.key"),
            "kafka_key_password": KEY_PASSWORD,
        }
        return Settings(**{**given, **changed})

    def allow(self, script: str, *words: str) -> None:
        """Run a script of `deploy/acl` and give its rules to the broker.

        Kafka's own tool is not among the jars of the local Kafka: one that writes its words down stands in for it.
        """
        tool, calls = self.home / "kafka-acls.sh", self.home / "calls"
        tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@" end >> "$CALLS"\n')
        tool.chmod(0o755)
        calls.write_text("")
        environment = {**os.environ, "KAFKA_ACLS": str(tool), "CALLS": str(calls), "BOOTSTRAP_SERVERS": self.inside}
        subprocess.run([ACL / script, *words], env=environment, check=True, timeout=60)
        rules = [call.split("\n") for call in calls.read_text().split("\nend\n") if call]
        bindings = [binding for rule in rules for binding in bindings_of(rule)]
        admin = AdminClient({"bootstrap.servers": self.inside})
        for created in admin.create_acls(bindings).values():
            created.result(timeout=30)

    def environment(self, user: str, **changed: str) -> dict[str, str]:
        """The same as variables, its secrets as files."""
        path = self.certificates.path
        path("password").write_text(PASSWORDS[user] + "\n")
        path("key-password").write_text(KEY_PASSWORD)
        given = {
            "HOME": str(self.home),
            "BOOTSTRAP_SERVERS": self.address,
            "REGISTRY_URL": self.registry_url,
            "PARTITIONS": "2",
            "KAFKA_USERNAME": user,
            "KAFKA_PASSWORD_FILE": str(path("password")),
            "KAFKA_CA_FILE": str(path("authority.pem")),
            "KAFKA_CERT_FILE": str(path("client.pem")),
            "KAFKA_KEY_FILE": str(path("client.key")),
            "KAFKA_KEY_PASSWORD_FILE": str(path("key-password")),
        }
        return {f"DRIFTLINE_{name}": value for name, value in {**given, **changed}.items()}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    found = Certificates(tmp_path_factory.mktemp("certificates"))
    found.authority("authority")
    found.authority("stranger")
    found.signed("broker")
    found.signed("client", KEY_PASSWORD)
    found.path("broker.both").write_text(found.path("broker.key").read_text() + found.path("broker.pem").read_text())
    return found


@pytest.fixture(scope="session")
def shut(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Shut]:
    home, port = tmp_path_factory.mktemp("shut"), free_port()
    users = [f"SCRAM-SHA-512=[name={name},password={password}]" for name, password in PASSWORDS.items()]
    kafka = LocalKafka(home, secured=Secured(port, broker_properties(certificates), users))
    registry = LocalRegistry(home)
    try:
        inside = kafka.start(ephemeral=True).bootstrap_servers
        url = registry.start(ephemeral=True).url
        yield Shut(home, f"{HOST}:{port}", str(inside), str(url), certificates)
    finally:
        registry.stop()
        kafka.stop()


RESOURCES = {
    "--topic": ResourceType.TOPIC,
    "--group": ResourceType.GROUP,
    "--transactional-id": ResourceType.TRANSACTIONAL_ID,
}
"""As `kafka-acls` names them."""
PERMISSIONS = {"--allow-principal": AclPermissionType.ALLOW, "--deny-principal": AclPermissionType.DENY}


def bindings_of(rule: list[str]) -> list[AclBinding]:
    """What one call of `kafka-acls` asks for."""
    assert rule.pop(2) == "--add", rule
    pairs = list(zip(rule[::2], rule[1::2], strict=True))
    given = dict(pairs)
    ((resource, name),) = [(RESOURCES[option], value) for option, value in pairs if option in RESOURCES]
    ((permission, principal),) = [(PERMISSIONS[option], value) for option, value in pairs if option in PERMISSIONS]
    pattern = given.pop("--resource-pattern-type", "literal").upper()
    assert set(given) <= {"--bootstrap-server", "--operation", *RESOURCES, *PERMISSIONS}, rule
    return [
        AclBinding(
            resource,
            name,
            ResourcePatternType[pattern],
            principal,
            "*",
            AclOperation[_constant(operation)],
            permission,
        )
        for option, operation in pairs
        if option == "--operation"
    ]


def _constant(operation: str) -> str:
    """`AlterConfigs` as `ALTER_CONFIGS`."""
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in operation).lstrip("_").upper()


def broker_properties(certificates: Certificates) -> dict[str, str]:
    listener = "listener.name.secured"
    return {
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        f"{listener}.scram-sha-512.sasl.jaas.config": SCRAM_LOGIN,
        f"{listener}.ssl.keystore.type": "PEM",
        f"{listener}.ssl.keystore.location": str(certificates.path("broker.both")),
        f"{listener}.ssl.truststore.type": "PEM",
        f"{listener}.ssl.truststore.location": str(certificates.path("authority.pem")),
        f"{listener}.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{OPERATOR}",
    }
