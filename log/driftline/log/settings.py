"""Where the log is: addresses from the caller, the environment, `driftline.toml` or the local cluster's file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from driftline.schemas import BadInput, KafkaUnreachable, RegistryUnreachable

CONFIG_FILE = Path("driftline.toml")
HOME_DEFAULT = Path(".driftline")
ENDPOINTS_FILE = "local.json"
"""In the home folder; the local services write their addresses there while they run."""

LOG_LEVEL_CRITICAL = 2
"""librdkafka writes every refused connection to stderr below it; our own errors say the same in one line."""


class Settings(BaseSettings):
    """Settings of one process. Explicit values win over `DRIFTLINE_*`, then `driftline.toml`, then the local cluster.

    Nothing is connected when this is built.
    """

    model_config = SettingsConfigDict(env_prefix="DRIFTLINE_", extra="forbid", frozen=True)

    home: Path = HOME_DEFAULT
    """Folder of local services, runs and ledgers."""
    bootstrap_servers: str | None = None
    """`host:port,…` of the Kafka brokers."""
    registry_url: str | None = Field(default=None, repr=False)
    """Base URL of Confluent's schema registry API; it may hold credentials, so it is kept out of the repr."""
    kafka: dict[str, str | int | bool] = Field(default_factory=dict, repr=False)
    """librdkafka settings passed through as they stand (`security.protocol`, `sasl.mechanism`, …)."""
    kafka_password: SecretStr | None = None
    """`sasl.password`; kept out of every log and repr."""
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
        """The registry's address.

        Raises:
            RegistryUnreachable: None is configured and no local one runs.
        """
        if self.registry_url:
            return self.registry_url
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
        if self.kafka_password is not None:
            shared["sasl.password"] = self.kafka_password.get_secret_value()
        return {**shared, **self.kafka, **(overrides or {})}


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
