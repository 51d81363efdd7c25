"""What is deployed fits the program: manifests that validate, names that agree, nothing that floats, nothing open."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate
from prometheus_client import CollectorRegistry
from typer.main import get_command

from driftline.console.exporting.nights import read_nights
from driftline.console.health import Health, health_endpoints
from driftline.console.main import app as command_line
from driftline.console.nightly_config import load_config
from driftline.log import Settings
from driftline.log.writer import TRANSACTION_TIMEOUT_MS

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
KUBERNETES_VERSIONS = ("1.29", "1.32", "1.36")
"""The oldest that knows the labels and fields in use, and later ones."""
INSTALLED = "/opt/driftline/bin/driftline"
EXPOSURE_MAX = 20
"""Tenths, as `systemd-analyze security` counts: 0 is shut, 100 is open."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


RESOURCES = {
    f"{d['kind']}/{d['metadata']['name']}": d for n in KUSTOMIZATION["resources"] for d in documents(KUBERNETES / n)
}
RUNTIME = RESOURCES["StatefulSet/driftline-runtime"]["spec"]
NIGHTLY = RESOURCES["CronJob/driftline-nightly"]["spec"]


def pod_spec(resource: dict[str, Any]) -> dict[str, Any] | None:
    spec = resource.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    found: dict[str, Any] | None = spec.get("template", {}).get("spec")
    return found


PODS = {name: pod for name, resource in RESOURCES.items() if (pod := pod_spec(resource)) is not None}


def settled(*sources: str) -> set[str]:
    """Every setting that a text names."""
    return {name.lower() for text in sources for name in re.findall(r"\bDRIFTLINE_([A-Z_]+)", text)}


def option(words: Sequence[str], name: str) -> str:
    return words[list(words).index(name) + 1]


# Kubernetes


def test_kustomization_lists_every_manifest_and_every_file_that_it_lists_is_there() -> None:
    listed = set(KUSTOMIZATION["resources"])
    assert listed == {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    for generator in KUSTOMIZATION["configMapGenerator"]:
        for name in (*generator.get("files", ()), *generator.get("envs", ())):
            assert (KUBERNETES / name).is_file(), name


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("name", RESOURCES)
def test_a_manifest_is_what_kubernetes_takes(name: str, version: str) -> None:
    validate(RESOURCES[name], version, strict=True)


def test_what_a_pod_refers_to_is_made_here_or_named_in_the_readme() -> None:
    made = {generator["name"] for generator in KUSTOMIZATION["configMapGenerator"]}
    claims = {name.partition("/")[2] for name in RESOURCES if name.startswith("PersistentVolumeClaim/")}
    readme = (DEPLOY / "README.md").read_text()
    for pod in PODS.values():
        for volume in pod["volumes"]:
            assert volume.get("configMap", {"name": next(iter(made))})["name"] in made
            assert volume.get("persistentVolumeClaim", {"claimName": next(iter(claims))})["claimName"] in claims
            assert f"`{volume.get('secret', {'secretName': 'driftline-pii'})['secretName']}`" in readme
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", PODS)
def test_a_pod_runs_as_nobody_on_a_root_that_it_cannot_write(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.M)
    assert user == [(str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"]))]


@pytest.mark.parametrize("name", PODS)
def test_a_file_that_a_pods_settings_name_lies_in_one_of_its_volumes(name: str) -> None:
    (container,) = PODS[name]["containers"]
    common = dict(line.split("=", 1) for line in (KUBERNETES / "driftline.env").read_text().splitlines()[1:])
    given = common | {e["name"]: e["value"] for e in container["env"] if "value" in e}
    files = [value for name, value in given.items() if name.endswith("_FILE")]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert len(files) >= 2
    assert all(any(file.startswith(f"{mount}/") for mount in mounts) for file in files)
    assert "DRIFTLINE_KAFKA_USERNAME" in given


def test_the_slot_is_the_pods_ordinal_which_outlasts_the_pod() -> None:
    (container,) = RUNTIME["template"]["spec"]["containers"]
    assert option(container["args"], "--slot") == "$(SLOT)"
    (slot,) = [entry for entry in container["env"] if entry["name"] == "SLOT"]
    assert slot["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"


def test_a_stop_has_time_for_what_is_in_flight_and_a_commit_everywhere() -> None:
    (container,) = RUNTIME["template"]["spec"]["containers"]
    graces = {
        float(option(container["args"], "--drain-s")): RUNTIME["template"]["spec"]["terminationGracePeriodSeconds"],
        float(option(COMPOSE["services"]["runtime"]["command"], "--drain-s")): int(
            COMPOSE["services"]["runtime"]["stop_grace_period"].removesuffix("s")
        ),
    }
    unit = (SYSTEMD / "driftline-run@.service").read_text()
    (words,) = re.findall(r"^ExecStart=(.*)$", unit, re.M)
    graces[float(option(words.split(), "--drain-s"))] = int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.M)[0])
    for drain_s, grace_s in graces.items():
        assert grace_s >= drain_s + 2 * TRANSACTION_TIMEOUT_MS / 1000


def test_probes_ask_endpoints_that_are_served_on_the_port_that_is_given() -> None:
    served = health_endpoints(Health(), CollectorRegistry())
    probed = 0
    for name in ("StatefulSet/driftline-runtime", "Deployment/driftline-exporter"):
        (container,) = PODS[name]["containers"]
        (port,) = container["ports"]
        assert option(container["args"], "--http-port") == str(port["containerPort"])
        for probe in (value["httpGet"] for key, value in container.items() if key.endswith("Probe")):
            assert probe["path"] in served
            assert probe["port"] == port["name"]
            probed += 1
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert probed == 5


def test_services_and_the_disruption_budget_select_pods_that_there_are() -> None:
    labels = [
        RESOURCES[name]["spec"]["template"]["metadata"]["labels"].items()
        for name in PODS
        if name.partition("/")[0] in {"StatefulSet", "Deployment"}
    ]
    selectors = [d["spec"]["selector"] for d in RESOURCES.values() if d["kind"] in {"Service", "PodDisruptionBudget"}]
    assert len(selectors) == 3
    for selector in selectors:
        wanted = selector.get("matchLabels", selector).items()
        assert sum(wanted <= found for found in labels) == 1
    assert RESOURCES["PodDisruptionBudget/driftline-runtime"]["spec"]["maxUnavailable"] == 1
    assert RUNTIME["serviceName"] == "driftline-runtime"


def test_a_night_runs_once_at_a_time_in_a_zone_that_is_named_and_has_an_end() -> None:
    assert NIGHTLY["concurrencyPolicy"] == "Forbid"
    assert NIGHTLY["timeZone"] == "Etc/UTC"
    assert 0 < NIGHTLY["startingDeadlineSeconds"] < 86_400
    job = NIGHTLY["jobTemplate"]["spec"]
    assert 0 < job["activeDeadlineSeconds"] < 86_400
    verdicts = job["podFailurePolicy"]["rules"][0]
    assert verdicts["action"] == "FailJob"
    assert {1, 4} <= set(verdicts["onExitCodes"]["values"])  # trying again changes no verdict
    assert 3 not in verdicts["onExitCodes"]["values"]  # a broker that was away comes back


def test_configuration_files_are_what_driftline_reads() -> None:
    apps = tomllib.loads((KUBERNETES / "driftline.toml").read_text())
    assert Settings(**apps).apps
    assert set(load_config(KUBERNETES / "nightly.toml").apps) == set(apps["apps"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_what_validates_with_images_that_are_pinned() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, timeout=60, check=False
    )
    if "unknown command" in done.stderr:
        pytest.skip("this kubectl has no kustomize")
    assert done.returncode == 0, done.stderr
    built = [document for document in yaml.safe_load_all(done.stdout) if document]
    assert len(built) == len(RESOURCES) + len(KUSTOMIZATION["configMapGenerator"])
    for resource in built:
        validate(resource, KUBERNETES_VERSIONS[-1], strict=True)
    images = re.findall(r"image: (\S+)", done.stdout)
    assert images
    assert all(is_pinned(image) for image in images)


# Names and commands, everywhere


def all_texts() -> dict[str, str]:
    named = [DEPLOY / "compose.yaml", DEPLOY / "Dockerfile", DEPLOY / "README.md", KUBERNETES / "driftline.env"]
    found = [*named, *KUBERNETES.glob("*.yaml"), *SYSTEMD.iterdir()]
    return {str(path.relative_to(DEPLOY)): path.read_text() for path in found}


@pytest.mark.parametrize("name", all_texts())
def test_every_variable_is_a_setting(name: str) -> None:
    elsewhere = {"artifacts"}  # of the local services
    assert settled(all_texts()[name]) <= set(Settings.model_fields) | elsewhere


def _commands() -> Iterator[tuple[str, list[str]]]:
    for name, pod in PODS.items():
        yield name, pod["containers"][0]["args"]
    for name, service in COMPOSE["services"].items():
        if service.get("image", "").startswith("driftline:"):
            yield f"compose {name}", service["command"]
    for path in UNITS:
        for line in re.findall(rf"^ExecStart={INSTALLED} (.*)$", path.read_text(), re.M):
            yield path.name, line.split()


COMMANDS = dict(_commands())


@pytest.mark.parametrize(("where", "words"), COMMANDS.items(), ids=COMMANDS.keys())
def test_every_command_exists_with_its_options(where: str, words: list[str]) -> None:
    found: Any = getattr(get_command(command_line), "commands", {}).get(words[0])
    assert found is not None, f"{where}: there is no command {words[0]}"
    options = {name for parameter in found.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def is_pinned(image: str) -> bool:
    tag = image.rpartition(":")[2]
    return ":" in image and re.search(r"\d+\.\d+\.\d+|@sha256:", tag) is not None and "latest" not in image


# Compose


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_is_pinned_checked_and_in_a_profile(name: str) -> None:
    service = COMPOSE["services"][name]
    assert is_pinned(service["image"]), service["image"]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["profiles"]
    assert set(service["profiles"]) <= {"core", "observability", "app"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_what_compose_asks_for_is_in_the_example_and_nothing_there_is_unused() -> None:
    text = "\n".join(line for line in (DEPLOY / "compose.yaml").read_text().splitlines() if "#" not in line)
    asked = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    example = dict(
        line.split("=") for line in (DEPLOY / ".env.example").read_text().splitlines() if re.match(r"\w+=", line)
    )
    assert set(re.findall(r"\$\{(\w+)", text)) == set(asked)  # without a default, `up` of another profile would fail
    assert set(example) - {"COMPOSE_PROFILES"} == set(asked)
    assert {name: example[name] for name in asked} == asked


def test_without_a_service_that_runs_nights_the_exporter_of_compose_misses_none() -> None:
    assert not any("nightly" in service.get("command", ()) for service in COMPOSE["services"].values())
    volumes = dict(volume.split(":/") for volume in COMPOSE["services"]["exporter"]["volumes"])
    (given,) = [source for source, target in volumes.items() if target == "etc/driftline/nightly.toml:ro"]
    (unless_said,) = re.findall(r"^\$\{NIGHTLY_FILE:-(.*)\}$", given)
    assert read_nights(Path(unless_said)) == {}


def test_prometheus_scrapes_the_ports_that_are_served() -> None:
    targets = set(re.findall(r"127\.0\.0\.1:(94\d\d)", (DEPLOY / "prometheus" / "prometheus.yml").read_text()))
    published = {port.split(":")[1] for service in COMPOSE["services"].values() for port in service.get("ports", ())}
    assert {"9465", "9470"} <= targets & published


def test_containers_of_driftline_have_no_rights_and_a_root_that_they_cannot_write() -> None:
    for name in ("runtime", "exporter"):
        service = COMPOSE["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


# Image


def locked(path: Path) -> dict[str, str]:
    """What a lock holds of each package: version, marker and hashes."""
    blocks = re.split(r"^(?=[a-z0-9])", path.read_text(), flags=re.M)[1:]
    return {block.partition("==")[0]: block for block in blocks}


def requirements_of(package: str) -> set[str]:
    found = importlib.metadata.requires(package) or ()
    return {
        re.split(r"[^\w-]", line)[0].lower()
        for line in found
        if "extra ==" not in line and "python_version" not in line
    }


def test_the_image_is_built_from_pinned_bases_and_runs_as_nobody() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    assert len(bases) == 2
    assert all(map(is_pinned, bases))
    assert DOCKERFILE.rindex("USER 10001:10001") > DOCKERFILE.rindex("FROM ")
    installs = re.findall(r"pip install ([^\\\n]*)", DOCKERFILE)
    assert len(installs) == 3
    assert all("--require-hashes" in words or "--no-index" in words for words in installs)


CODE = PurePosixPath(dict(re.findall(r"\b(PYTHONPATH)=(\S+)", DOCKERFILE)).get("PYTHONPATH", "/none"))
"""Where the image has the app's code."""


def test_an_apps_code_is_copied_to_where_the_image_imports_it_from() -> None:
    (copied,) = re.findall(r"^# .*\bCOPY my_app (\S+)$", DOCKERFILE, re.M)
    assert PurePosixPath(copied).parent == CODE
    assert re.search(rf"^RUN mkdir -p {CODE} ", DOCKERFILE, re.M)
    assert f"`{CODE}`" in (DEPLOY / "README.md").read_text()


def mounts() -> dict[str, set[str]]:
    """What is mounted, by pod and by service of the image."""
    pods = {name: {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]} for name, pod in PODS.items()}
    ours = {name: one for name, one in COMPOSE["services"].items() if one["image"].startswith("driftline:")}
    return pods | {f"compose {name}": {v.split(":")[-2] for v in one["volumes"]} for name, one in ours.items()}


@pytest.mark.parametrize("name", mounts())
def test_nothing_is_mounted_over_the_apps_code(name: str) -> None:
    mounted = {PurePosixPath(path) for path in mounts()[name]}
    assert mounted
    assert not mounted & {CODE, *CODE.parents}


def test_the_locks_of_the_image_are_parts_of_the_lock() -> None:
    whole, runtime = locked(ROOT / "requirements.lock"), locked(DEPLOY / "requirements.lock")
    assert runtime.items() <= whole.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"].values()
    wanted = [*project["project"]["dependencies"], *itertools.chain(*extras)]
    assert {re.split(r"[\[>=<]", name)[0] for name in wanted} <= set(runtime)
    assert not {"pytest", "mypy", "ruff", "hypothesis", "statsmodels"} & set(runtime)
    assert all("--hash=sha256:" in block for block in runtime.values())


def test_what_builds_the_wheel_is_taken_out_of_the_lock_whole() -> None:
    (tools,) = re.findall(r"\^\(([\w|-]+)\)\$", DOCKERFILE)
    taken = set(tools.split("|"))
    assert taken <= set(locked(ROOT / "requirements.lock"))
    assert {"hatchling"} | {name for tool in taken for name in requirements_of(tool)} <= taken


def test_the_image_is_given_every_source_and_no_secret() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    given = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert all((ROOT / path).exists() for path in given)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["sources"], *wheel["force-include"]} <= given
    assert not any(".env" in path for path in given)


# systemd


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program that is there in the place of the installed one."""
    for path in SYSTEMD.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace(INSTALLED, shutil.which("true") or "/bin/true"))
    return tmp_path


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@needs_systemd
def test_systemd_takes_the_units_without_a_warning(units: Path) -> None:
    shutil.copy(units / "driftline-run@.service", units / "driftline-run@renewals.service")
    loaded = [
        units / "driftline-run@renewals.service",
        units / "driftline-nightly.timer",
        *units.glob("driftline-[en]*.service"),
    ]
    done = analyze("verify", "--man=no", *loaded)
    assert done.returncode == 0
    assert "driftline" not in done.stderr, done.stderr


@needs_systemd
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_may_do_little(path: Path, units: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", units / path.name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_gets_its_secrets_as_credentials_and_its_user_from_itself(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^User=driftline$", text, re.M)
    credentials = set(re.findall(r"^LoadCredential=([\w-]+):/etc/driftline/secrets/", text, re.M))
    assert credentials == set(re.findall(r"^Environment=DRIFTLINE_\w+_FILE=%d/([\w-]+)$", text, re.M))
    assert "kafka-password" in credentials
    assert not re.search(r"(PASSWORD|SECRET|KEY)=", text)


def test_nights_begin_at_the_same_time_on_systemd_and_on_kubernetes() -> None:
    minute, hour, *rest = NIGHTLY["schedule"].split()
    timer = (SYSTEMD / "driftline-nightly.timer").read_text()
    assert rest == ["*", "*", "*"]
    assert f"OnCalendar=*-*-* {int(hour):02}:{int(minute):02}:00 UTC" in timer
    assert "Persistent=yes" in timer
