"""Where the log is and how to get in: by the caller, the environment, `driftline.toml` or the local cluster's file.

Secrets are given as they are (`DRIFTLINE_KAFKA_PASSWORD`) or as a file (`DRIFTLINE_KAFKA_PASSWORD_FILE`), which is
how Kubernetes, systemd and Docker hand them out. They are in no repr, no error and no log.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from driftline.schemas import BadInput, Codec, Contracts, KafkaUnreachable, Registry, RegistryUnreachable
from driftline.schemas.secrets import passwords_in, remember_secret

CONFIG_FILE = Path("driftline.toml")
HOME_DEFAULT = Path(".driftline")
ENDPOINTS_FILE = "local.json"
"""In the home folder; the local services write their addresses there while they run."""

LOG_LEVEL_CRITICAL = 2
"""librdkafka writes every refused connection to stderr below it; our own errors say the same in one line."""

SECRETS = ("kafka_password", "kafka_key_password", "registry_password", "pii_secret")
"""Settings that `<name>_file` may give too: the path of a file that holds nothing else."""
SECRET_PROPERTIES = ("password", "secret", "sasl.jaas", "ssl.key.pem", "sasl.oauthbearer.config")
"""In the name of a librdkafka setting: its value is a secret."""
PEM_FILES = ("kafka_ca_file", "kafka_cert_file", "kafka_key_file")
"""Read by librdkafka, which names neither the file nor the setting when it cannot."""
PII_SECRET_CHARACTERS_MIN = 16
"""With a shorter key, hashed values could be found by trying keys."""


class Settings(BaseSettings):
    """Settings of one process. Explicit values win over `DRIFTLINE_*`, then `driftline.toml`, then the local cluster.

    Nothing is connected when this is built.
    """

    model_config = SettingsConfigDict(
        env_prefix="DRIFTLINE_", extra="forbid", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    home: Path = HOME_DEFAULT
    """Folder of local services, runs and ledgers."""
    bootstrap_servers: str | None = None
    """`host:port,…` of the Kafka brokers."""
    registry_url: str | None = Field(default=None, repr=False)
    """Base URL of Confluent's schema registry API; it may hold credentials, so it is kept out of the repr."""
    kafka: dict[str, str | int | bool] = Field(default_factory=dict, repr=False)
    """librdkafka settings passed through as they stand (`security.protocol`, `sasl.mechanism`, …)."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = None
    """How clients connect; None takes SASL_SSL with a user, SSL with a certificate, else what `kafka` says."""
    kafka_sasl_mechanism: str | None = None
    """How the password is proved; None takes SCRAM-SHA-512 with a user."""
    kafka_username: str | None = None
    """`sasl.username`."""
    kafka_password: SecretStr | None = None
    """`sasl.password`; kept out of every log and repr."""
    kafka_password_file: Path | None = None
    kafka_ca_file: Path | None = None
    """PEM file of the authority that signed the brokers' certificates, or a folder of such files as OpenSSL hashes
    them; None trusts the system's."""
    kafka_cert_file: Path | None = None
    """PEM file of this client's certificate, for brokers that ask for one."""
    kafka_key_file: Path | None = None
    """PEM file of its key."""
    kafka_key_password: SecretStr | None = None
    kafka_key_password_file: Path | None = None
    registry_username: str | None = None
    """Of HTTP basic authentication at the registry."""
    registry_password: SecretStr | None = None
    registry_password_file: Path | None = None
    pii_secret: SecretStr | None = Field(default=None, min_length=PII_SECRET_CHARACTERS_MIN)
    """Key of the hashes that take the place of fields tagged `"pii": "hash"`; another key gives other hashes."""
    pii_secret_file: Path | None = None
    apps: dict[str, str] = Field(default_factory=dict)
    """App name to `module:attribute`."""
    partitions: int = Field(default=4, ge=1)
    """Partitions of an app's topics when driftline creates them; fixed from then on."""
    replication_factor: int = Field(default=1, ge=1)
    """Replicas of the topics that driftline creates."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of sources, strongest first."""
        return init_settings, env_settings, _FileSource(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, given: Any) -> Any:
        """Take the secrets out of their files."""
        return {**given, **{name: _secret_of(name, given) for name in SECRETS if f"{name}_file" in given}}

    @model_validator(mode="after")
    def _look_at_pem_files(self) -> Settings:
        """Name the file that is not there, before a client is made."""
        for name in PEM_FILES:
            path = getattr(self, name)
            if path is not None and not (name == "kafka_ca_file" and path.is_dir()):
                _require_pem(name, path)
        return self

    @model_validator(mode="after")
    def _remember_secrets(self) -> Settings:
        held = [getattr(self, name) for name in SECRETS]
        found = [secret.get_secret_value() for secret in held if secret is not None]
        for name, value in self.kafka.items():
            if any(part in name for part in SECRET_PROPERTIES):
                found.append(str(value))
        for secret in (*found, *passwords_in(self.registry_url or "")):
            remember_secret(secret)
        return self

    def require_bootstrap(self) -> str:
        """The brokers' addresses.

        Raises:
            KafkaUnreachable: None is configured and no local Kafka runs.
        """
        if self.bootstrap_servers:
            return self.bootstrap_servers
        raise KafkaUnreachable(
            "no Kafka is configured and no local one runs",
            "run `driftline kafka start` or set DRIFTLINE_BOOTSTRAP_SERVERS",
        )

    def require_registry(self) -> str:
        """The registry's address, with the credentials in it: for `Registry` alone, which tells it without them.

        Raises:
            RegistryUnreachable: None is configured and no local one runs.
            BadInput: There is a user without a password.
        """
        if self.registry_url:
            return self._with_credentials(self.registry_url)
        raise RegistryUnreachable(
            "no schema registry is configured and no local one runs",
            "run `driftline registry start` or set DRIFTLINE_REGISTRY_URL",
        )

    def client(self, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """librdkafka settings: those that every client shares, the user's, then `overrides`."""
        shared: dict[str, Any] = {
            "bootstrap.servers": self.require_bootstrap(),
            "client.id": "driftline",
            "log_level": LOG_LEVEL_CRITICAL,
        }
        return {**shared, **self._access(), **self.kafka, **(overrides or {})}

    @property
    def secured(self) -> bool:
        """Whether clients prove who they are, or want proof of who the broker is."""
        return self.client_protocol != "PLAINTEXT"

    @property
    def client_protocol(self) -> str:
        """`security.protocol` of the clients."""
        given = self.kafka.get("security.protocol") or self._access().get("security.protocol") or "PLAINTEXT"
        return str(given).upper()

    def codec(self, contracts: Contracts) -> Codec:
        """What encodes and decodes an app's values, personal data included; nothing is connected yet.

        Raises:
            RegistryUnreachable: No registry is configured and no local one runs.
        """
        key = None if self.pii_secret is None else self.pii_secret.get_secret_value().encode()
        return Codec(Registry(self.require_registry()), contracts, key)

    def _access(self) -> dict[str, Any]:
        """librdkafka's words for what was given of user, certificates and protocol."""
        protocol, mechanism = self.kafka_security_protocol, self.kafka_sasl_mechanism
        if self.kafka_username is not None:
            protocol, mechanism = protocol or "SASL_SSL", mechanism or "SCRAM-SHA-512"
        elif self.kafka_ca_file or self.kafka_cert_file:
            protocol = protocol or "SSL"
        found = {
            "security.protocol": protocol,
            "sasl.mechanism": mechanism,
            "sasl.username": self.kafka_username,
            "sasl.password": self.kafka_password,
            "ssl.ca.location": self.kafka_ca_file,
            "ssl.certificate.location": self.kafka_cert_file,
            "ssl.key.location": self.kafka_key_file,
            "ssl.key.password": self.kafka_key_password,
        }
        return {name: _plain(value) for name, value in found.items() if value is not None}

    def _with_credentials(self, urls: str) -> str:
        if self.registry_username is None:
            return urls
        if self.registry_password is None:
            raise BadInput("setting registry_username: there is no password", "set DRIFTLINE_REGISTRY_PASSWORD_FILE")
        user, password = quote(self.registry_username, ""), quote(self.registry_password.get_secret_value(), "")
        return ",".join(url.replace("://", f"://{user}:{password}@", 1) for url in urls.split(","))


class _FileSource(PydanticBaseSettingsSource):
    """`driftline.toml` in the working folder, and below it the local cluster's endpoints."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        configured = _read_config(CONFIG_FILE)
        home = self.current_state.get("home") or configured.get("home") or HOME_DEFAULT
        if not isinstance(home, (str, Path)):
            return configured  # it is refused as every setting of a wrong type is
        return {**_read_endpoints(Path(home) / ENDPOINTS_FILE), **configured}


def load_settings(bootstrap_servers: str | None = None, registry_url: str | None = None) -> Settings:
    """The settings of this process; None means not given.

    Raises:
        BadInput: `driftline.toml` or an environment variable is wrong.
    """
    given = {"bootstrap_servers": bootstrap_servers, "registry_url": registry_url}
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"setting {where}: {first['msg']}", f"mend it in {CONFIG_FILE} or DRIFTLINE_*") from None
    except SettingsError as error:
        raise BadInput(f"DRIFTLINE_*: {error}", "tables are given as one JSON object") from None


def load_home() -> Path:
    """The setting `home` alone; nothing in that folder is read, which may be damaged or not there yet.

    Raises:
        BadInput: `driftline.toml` is wrong.
    """
    home = os.environ.get("DRIFTLINE_HOME") or _read_config(CONFIG_FILE).get("home") or HOME_DEFAULT
    if not isinstance(home, (str, Path)):
        raise BadInput("setting home: not a path", f"mend it in {CONFIG_FILE}")
    return Path(home)


def _plain(value: str | Path | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _secret_of(name: str, given: Mapping[str, Any]) -> Any:
    """A secret out of its file, without the line's end.

    Raises:
        BadInput: It is given twice, or the file cannot be read or is empty.
    """
    path = given[f"{name}_file"]
    if path is None:
        return given.get(name)
    if given.get(name) is not None:
        raise BadInput(f"setting {name}: it is given twice", f"give {name} or {name}_file")
    try:
        text = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError, TypeError) as error:
        why = getattr(error, "strerror", None) or "not a text file"
        raise BadInput(f"setting {name}_file: {path}: {why}", "give the path of a readable file") from None
    if not text:
        raise BadInput(f"setting {name}_file: {path}: it is empty", f"write the {name} into it")
    return text


def _require_pem(name: str, path: Path) -> None:
    """Prove that a certificate or key can be read.

    Raises:
        BadInput: It cannot, or is no PEM.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise BadInput(f"setting {name}: {path}: {error.strerror}", "give the path of a readable file") from None
    if b"-----BEGIN " not in found:
        raise BadInput(f"setting {name}: {path}: it holds no PEM", "give a file with `-----BEGIN …-----` in it")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not TOML: {error}", "mend that line") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}", "check that it is a readable file") from error


def _read_endpoints(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: not readable: {error}", "run `driftline kafka start` again") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}: does not hold an object", "run `driftline kafka start` again")
    return {name: found[name] for name in ("bootstrap_servers", "registry_url") if name in found}
