"""Where settings come from, and which of them wins."""

from pathlib import Path

import pytest

from driftline.log import KafkaReader, Settings, TransactionalWriter, load_settings
from driftline.schemas import BadInput, KafkaUnreachable, RegistryUnreachable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and no variables of the machine's."""
    monkeypatch.chdir(tmp_path)
    for name in ("BOOTSTRAP_SERVERS", "REGISTRY_URL", "HOME", "KAFKA", "KAFKA_PASSWORD", "PARTITIONS", "APPS"):
        monkeypatch.delenv(f"DRIFTLINE_{name}", raising=False)
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


def test_a_setting_that_librdkafka_does_not_know_is_told() -> None:
    settings = Settings(bootstrap_servers="127.0.0.1:1", kafka={"no.such.setting": 1})
    with pytest.raises(BadInput, match=r"no\.such\.setting"):
        KafkaReader(settings).span("a.events")
    with pytest.raises(BadInput, match=r"no\.such\.setting"):
        TransactionalWriter(settings, "a").open()
