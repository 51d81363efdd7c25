"""Where settings come from, and which of them wins."""

import io
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from driftline.console.logs import LogFormat, set_up_logs
from driftline.log import KafkaReader, Settings, TransactionalWriter, load_settings
from driftline.log.settings import PEM_FILES, SECRETS
from driftline.schemas import BadInput, Contracts, KafkaUnreachable, RegistryUnreachable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and no variables of the machine's."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DRIFTLINE_{name.upper()}", raising=False)
    return tmp_path


def _local(folder: Path, text: str) -> None:
    (folder / ".driftline").mkdir()
    (folder / ".driftline" / "local.json").write_text(text)


def test_the_argument_wins_over_the_variable_over_the_file_over_the_local_cluster(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _local(folder, '{"bootstrap_servers": "local:1", "registry_url": "http://local"}')
    assert load_settings().bootstrap_servers == "local:1"
    (folder / "driftline.toml").write_text('bootstrap_servers = "file:1"')
    assert load_settings().bootstrap_servers == "file:1"
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", "variable:1")
    assert load_settings().bootstrap_servers == "variable:1"
    assert load_settings(bootstrap_servers="argument:1").bootstrap_servers == "argument:1"
    assert load_settings().registry_url == "http://local"


def test_the_home_folder_says_where_the_local_cluster_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "local.json").write_text('{"bootstrap_servers": "elsewhere:1"}')
    monkeypatch.setenv("DRIFTLINE_HOME", "elsewhere")
    assert load_settings().require_bootstrap() == "elsewhere:1"


def test_without_a_cluster_the_mend_is_told() -> None:
    with pytest.raises(KafkaUnreachable, match=r"driftline kafka start.*DRIFTLINE_BOOTSTRAP_SERVERS"):
        load_settings().require_bootstrap()
    with pytest.raises(RegistryUnreachable, match=r"driftline registry start.*DRIFTLINE_REGISTRY_URL"):
        load_settings().require_registry()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bootstrap_servers = ", r"driftline\.toml: not TOML"),
        ('bootstrap = "a:1"', "setting bootstrap: Extra inputs are not permitted"),
        ('partitions = "many"', "setting partitions: "),
        ("home = 5", "setting home: Input is not a valid path"),
        ("partitions = 0", "setting partitions: Input should be greater than or equal to 1"),
        ("[kafka]\na = [1]", r"setting kafka\.a"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(folder: Path, text: str, told: str) -> None:
    (folder / "driftline.toml").write_text(text)
    with pytest.raises(BadInput, match=told) as wrong:
        load_settings()
    assert "\n" not in str(wrong.value).split("; ")[-1]


def test_a_wrong_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_KAFKA", "not json")
    with pytest.raises(BadInput, match="kafka"):
        load_settings()


@pytest.mark.parametrize("text", ["[]", "{", "\x00"])
def test_a_damaged_file_of_the_local_cluster_is_told(folder: Path, text: str) -> None:
    _local(folder, text)
    with pytest.raises(BadInput, match=r"local\.json"):
        load_settings()


def test_a_password_is_in_no_repr_but_in_the_client(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "driftline.toml").write_text('[kafka]\n"ssl.key.password" = "s3cret"')
    monkeypatch.setenv("DRIFTLINE_KAFKA_PASSWORD", "s3cret")
    settings = load_settings(bootstrap_servers="a:1", registry_url="http://user:s3cret@r")
    assert "s3cret" not in repr(settings) + str(settings)
    assert settings.client()["sasl.password"] == settings.client()["ssl.key.password"] == "s3cret"


def test_what_a_client_needs_wins_over_what_the_user_passes_through() -> None:
    settings = Settings(bootstrap_servers="a:1", kafka={"acks": 0, "client.id": "mine"})
    assert settings.client({"acks": "all"}) == {
        "bootstrap.servers": "a:1",
        "client.id": "mine",
        "log_level": 2,
        "acks": "all",
    }


SECRET = "s3cret-of-the-team"
GIVEN = {
    "kafka_password": "sasl.password",
    "kafka_key_password": "ssl.key.password",
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_comes_from_a_variable_or_a_file_and_is_in_no_repr(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "secret").write_text(SECRET + "\n")
    monkeypatch.setenv(f"DRIFTLINE_{name.upper()}_FILE", str(folder / "secret"))
    by_file = load_settings(bootstrap_servers="a:1")
    monkeypatch.delenv(f"DRIFTLINE_{name.upper()}_FILE")
    monkeypatch.setenv(f"DRIFTLINE_{name.upper()}", SECRET)
    by_variable = load_settings(bootstrap_servers="a:1")
    for settings in (by_file, by_variable):
        assert getattr(settings, name).get_secret_value() == SECRET
        assert SECRET not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
        if name in GIVEN:
            assert settings.client()[GIVEN[name]] == SECRET


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_that_cannot_be_had_is_told_in_one_line_without_it(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DRIFTLINE_{name.upper()}_FILE", str(folder / "missing"))
    with pytest.raises(BadInput, match=rf"{name}_file: .*missing: No such file"):
        load_settings()
    (folder / "missing").write_text("\n")
    with pytest.raises(BadInput, match="it is empty"):
        load_settings()
    monkeypatch.setenv(f"DRIFTLINE_{name.upper()}", SECRET)
    with pytest.raises(BadInput, match=rf"give {name} or {name}_file") as twice:
        load_settings()
    assert SECRET not in str(twice.value)


def test_no_wrong_setting_tells_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_PII_SECRET", "too-short")
    with pytest.raises(BadInput, match="pii_secret") as short:
        load_settings()
    assert "too-short" not in str(short.value)
    with pytest.raises(ValidationError) as raw:
        Settings(kafka_password=SecretStr(SECRET), partitions=0)
    assert SECRET not in str(raw.value)


def test_a_secret_of_the_settings_is_struck_out_of_every_log_line(folder: Path) -> None:
    (folder / "driftline.toml").write_text('[kafka]\n"ssl.keystore.password" = "keystore-pass"')
    Settings(kafka_password=SecretStr(SECRET), registry_url="http://user:registry%2Fpass@r")
    load_settings()
    stream = io.StringIO()
    set_up_logs(LogFormat.JSON, "renewals", 0, stream)
    told = f"tried {SECRET}, keystore-pass, registry%2Fpass and registry/pass"
    logging.getLogger("driftline.log").warning(told, extra={"detail": told})
    line = stream.getvalue()
    assert "tried" in line
    assert not any(part in line for part in (SECRET, "keystore-pass", "registry%2Fpass", "registry/pass"))


@pytest.mark.parametrize("name", PEM_FILES)
def test_a_certificate_or_key_that_cannot_be_read_is_told_by_its_file_and_setting(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DRIFTLINE_{name.upper()}", str(folder / "missing.pem"))
    with pytest.raises(BadInput, match=rf"setting {name}: {folder}/missing.pem: No such file"):
        load_settings()
    (folder / "missing.pem").write_text("nothing")
    with pytest.raises(BadInput, match=rf"setting {name}: {folder}/missing.pem: it holds no PEM"):
        load_settings()


def test_the_authorities_may_be_a_folder(folder: Path) -> None:
    assert Settings(bootstrap_servers="a:1", kafka_ca_file=folder).client()["ssl.ca.location"] == str(folder)


def test_a_user_takes_the_safe_protocol_unless_another_is_given(folder: Path) -> None:
    settings = Settings(bootstrap_servers="a:1", kafka_username="u", kafka_password=SecretStr(SECRET))
    client = settings.client()
    assert (client["security.protocol"], client["sasl.mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert settings.secured
    plain = Settings(bootstrap_servers="a:1", kafka_username="u", kafka_security_protocol="SASL_PLAINTEXT")
    assert plain.client()["security.protocol"] == "SASL_PLAINTEXT"
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    trusting = Settings(bootstrap_servers="a:1", kafka_ca_file=folder / "ca.pem")
    assert trusting.client()["security.protocol"] == "SSL"
    assert not Settings(bootstrap_servers="a:1").secured
    assert Settings(bootstrap_servers="a:1", kafka={"security.protocol": "ssl"}).secured


def test_the_registrys_user_is_in_its_address_and_is_never_told() -> None:
    password = SecretStr("p/w:1")
    settings = Settings(registry_url="http://r:1,http://s", registry_username="u@x", registry_password=password)
    assert settings.require_registry() == "http://u%40x:p%2Fw%3A1@r:1,http://u%40x:p%2Fw%3A1@s"
    assert settings.codec(Contracts.load()).registry.url == "http://***@r:1,http://***@s"
    with pytest.raises(BadInput, match="DRIFTLINE_REGISTRY_PASSWORD_FILE"):
        Settings(registry_url="http://r:1", registry_username="u").require_registry()


def test_a_setting_that_librdkafka_does_not_know_is_told() -> None:
    settings = Settings(bootstrap_servers="127.0.0.1:1", kafka={"no.such.setting": 1})
    with pytest.raises(BadInput, match=r"no\.such\.setting"):
        KafkaReader(settings).span("a.events")
    with pytest.raises(BadInput, match=r"no\.such\.setting"):
        TransactionalWriter(settings, "a").open()
