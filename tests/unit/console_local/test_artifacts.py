import os
from pathlib import Path

import pytest

from driftline.console.local import LocalKafka, LocalRegistry
from driftline.console.local.artifacts import find_java, find_pom, last_maven_error, resolve
from driftline.console.local.errors import ArtifactsError, JavaError, LocalServiceError, MavenError

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, but for the system's own basic commands under other names."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "mkdir", "sleep"):
        (folder / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def _install(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _java_of(version: str) -> str:
    return f"""echo 'openjdk version "{version}" 2025-04-15' >&2"""


def test_no_java_says_how_to_get_one_and_how_to_do_without(tools: Path, tmp_path: Path) -> None:
    with pytest.raises(JavaError, match="no java on the PATH") as raised:
        LocalKafka(tmp_path / "home", tmp_path / "artifacts").start()
    _is_one_line_that_mends(raised.value, "apt-get install openjdk-17-jre-headless", "DRIFTLINE_BOOTSTRAP_SERVERS")


@pytest.mark.parametrize(("version", "major"), [("1.8.0_292", "8"), ("11.0.2", "11"), ("16", "16")])
def test_an_old_java_is_named(tools: Path, version: str, major: str) -> None:
    _install(tools, "java", _java_of(version))
    with pytest.raises(JavaError, match=f"is Java {major}, the local services need 17"):
        find_java()


@pytest.mark.parametrize("version", ["17.0.15", "21", "25-ea"])
def test_a_new_java_serves(tools: Path, version: str) -> None:
    _install(tools, "java", _java_of(version))
    assert find_java() == str(tools / "java")


def test_java_home_comes_before_the_path(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tools, "java", _java_of("11"))
    (tmp_path / "jdk" / "bin").mkdir(parents=True)
    _install(tmp_path / "jdk" / "bin", "java", _java_of("21"))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert find_java() == str(tmp_path / "jdk" / "bin" / "java")


def test_a_java_that_does_not_run_is_no_java(tools: Path) -> None:
    _install(tools, "java", "echo broken; exit 1")
    with pytest.raises(JavaError, match="does not name a version"):
        find_java()


def test_no_maven_says_how_to_get_it(tools: Path, tmp_path: Path) -> None:
    _install(tools, "java", _java_of("17.0.1"))
    with pytest.raises(MavenError, match="no mvn on the PATH to resolve registry") as raised:
        LocalRegistry(tmp_path / "home", tmp_path / "artifacts").start()
    _is_one_line_that_mends(raised.value, "apt-get install maven", "DRIFTLINE_REGISTRY_URL")


def test_what_maven_says_last_is_in_the_message_and_nothing_half_done_is_left(tools: Path, tmp_path: Path) -> None:
    _install(
        tools,
        "mvn",
        "mkdir -p target/service\n"
        "echo '[ERROR] Failed: Could not transfer artifact a:b:1: Unknown host -> [Help 1]'\n"
        "echo '[ERROR] '\necho '[ERROR] To see the full stack trace, re-run Maven with -e.'\nexit 1",
    )
    with pytest.raises(ArtifactsError, match="Could not transfer artifact a:b:1: Unknown host;") as raised:
        resolve(find_pom("kafka"), tmp_path / "artifacts", lambda _: None)
    _is_one_line_that_mends(raised.value, "DRIFTLINE_BOOTSTRAP_SERVERS")
    assert [path.name for path in (tmp_path / "artifacts").iterdir() if path.is_dir()] == []


def test_maven_runs_once(tools: Path, tmp_path: Path) -> None:
    _install(tools, "mvn", "mkdir -p target/service; echo jar > target/service/a.jar")
    said: list[str] = []
    folder = resolve(find_pom("kafka"), tmp_path / "artifacts", said.append)
    assert (folder / "a.jar").is_file()
    (tools / "mvn").unlink()
    assert resolve(find_pom("kafka"), tmp_path / "artifacts", said.append) == folder
    assert len(said) == 1


def test_mavens_reason_is_found_whatever_surrounds_it() -> None:
    assert last_maven_error("") == "mvn said nothing"
    assert (
        last_maven_error("Error: JAVA_HOME is not defined correctly.\n")
        == "Error: JAVA_HOME is not defined correctly."
    )
    assert (
        last_maven_error("[ERROR] why -> [Help 1]\n[ERROR] Re-run Maven using -X\n[ERROR] [Help 1] http://x\n")
        == "why"
    )


@pytest.mark.parametrize("service", ["kafka", "registry"])
def test_the_poms_name_exact_versions_and_no_repository(service: str) -> None:
    pom = find_pom(service)
    assert pom.path == REPOSITORY / "deploy" / service / "pom.xml"
    text = pom.path.read_text()
    assert "<repositor" not in text
    assert "<pluginRepositor" not in text
    assert "SNAPSHOT" not in text
    assert "<version>[" not in text


@pytest.mark.parametrize(
    ("service", "image"), [("kafka", "apache/kafka"), ("registry", "apicurio/apicurio-registry")]
)
def test_compose_runs_the_versions_of_the_poms(service: str, image: str) -> None:
    compose = (REPOSITORY / "deploy" / "compose.yaml").read_text()
    assert f"image: {image}:{find_pom(service).version}\n" in compose


def _is_one_line_that_mends(error: LocalServiceError, *parts: str) -> None:
    assert str(error) == error.mend
    assert "\n" not in error.mend
    assert os.environ["PATH"] not in error.mend
    for part in parts:
        assert part in error.mend
