"""The jars of the local services: found, or resolved once with Maven from a pinned pom."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from driftline.console.local.errors import EXISTING_CLUSTER, ArtifactsError, JavaError, MavenError
from driftline.console.local.places import file_lock

JAVA_VERSION_MIN = 17
JAVA_CHECK_TIMEOUT_S = 30
# A slow line takes minutes for 110 MB; Maven's own connect and read timeouts are far below this.
RESOLVE_TIMEOUT_S = 1800

_POM_NAMESPACE = "{http://maven.apache.org/POM/4.0.0}"
_DEBIAN_JAVA = "apt-get install openjdk-17-jre-headless"


@dataclass(frozen=True, slots=True)
class Pom:
    """One service's pinned pom."""

    service: str
    """`kafka` or `registry`: its folder in `deploy/`, and the first half of its artifacts folder."""
    path: Path
    version: str
    """The service's version, from the property `service.version`."""


def find_pom(service: str) -> Pom:
    """Find a service's pom: beside this module in a wheel, in `deploy/` in a checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "poms" / service / "pom.xml"
    path = packaged if packaged.is_file() else here.parents[3] / "deploy" / service / "pom.xml"
    version = ElementTree.parse(path).findtext(f".//{_POM_NAMESPACE}service.version")
    if not version:
        raise ArtifactsError(f"{path} does not name a service.version; restore the file: git checkout {path}")
    return Pom(service, path, version)


def find_java() -> str:
    """Return the path of a Java that is new enough: `$JAVA_HOME`'s, else the one on the PATH.

    Raises:
        JavaError: There is none, it does not run, or it is older than 17.
    """
    java = _java_path()
    if java is None:
        raise JavaError(
            f"no java on the PATH, the local services need Java {JAVA_VERSION_MIN} or newer; "
            f"install one ({_DEBIAN_JAVA}) or {EXISTING_CLUSTER}"
        )
    version = _java_version(java)
    if version < JAVA_VERSION_MIN:
        raise JavaError(
            f"{java} is Java {version}, the local services need {JAVA_VERSION_MIN} or newer; "
            f"install one ({_DEBIAN_JAVA}) or {EXISTING_CLUSTER}"
        )
    return java


def resolve(pom: Pom, artifacts: Path, say: Callable[[str], None]) -> Path:
    """Return the folder with a service's files, resolving them first if they are not here.

    1. Nothing is done, and Maven is not needed, where the folder exists.
    2. Else Maven works in a temporary folder beside it, under a lock between processes,
    3. and the result is renamed into place: the folder is complete, or it is not there.

    Raises:
        MavenError: The files are not here and there is no mvn.
        ArtifactsError: Maven could not resolve them; the message ends on its own last error.
    """
    target = artifacts / f"{pom.service}-{pom.version}"
    if target.is_dir():
        return target
    with file_lock(artifacts / f".{target.name}.lock"):
        if not target.is_dir():
            say(f"resolving {pom.service} {pom.version} with Maven into {target} (once)")
            _resolve_into(pom, target)
    return target


def _resolve_into(pom: Pom, target: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise MavenError(
            f"no mvn on the PATH to resolve {pom.service} {pom.version} with; "
            f"install it (apt-get install maven) or {EXISTING_CLUSTER}"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        shutil.copy(pom.path, Path(scratch) / "pom.xml")
        _run_maven(maven, pom, Path(scratch))
        (Path(scratch) / "target" / "service").rename(target)


def _run_maven(maven: str, pom: Pom, folder: Path) -> None:
    """Run the pom's one phase; `--strict-checksums` makes a damaged download an error."""
    command = [maven, "--batch-mode", "--quiet", "--strict-checksums", "generate-resources"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=RESOLVE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _unresolved(pom, f"mvn took more than {RESOLVE_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise _unresolved(pom, last_maven_error(done.stdout + done.stderr))
    if not (folder / "target" / "service").is_dir():
        raise _unresolved(pom, "mvn succeeded and left no files")


def last_maven_error(output: str) -> str:
    """Return the line of Maven's output that says why it failed.

    After the reason Maven prints lines of advice (`-> [Help 1]`, `Re-run Maven ...`), which are skipped.
    """
    lines = [line.removeprefix("[ERROR]").strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("[ERROR]").strip() for line in output.splitlines() if line.startswith("[ERROR]")]
    telling = [line for line in errors if line and not re.match(r"(To see|Re-run|For more|\[Help|-> \[)", line)]
    reason = (telling or lines or ["mvn said nothing"])[-1]
    return re.sub(r"\s*-> \[Help \d+\]$", "", reason)


def _unresolved(pom: Pom, reason: str) -> ArtifactsError:
    return ArtifactsError(f"cannot resolve {pom.service} {pom.version}: {reason}; try again, or {EXISTING_CLUSTER}")


def _java_path() -> str | None:
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").is_file():
        return str(Path(home) / "bin" / "java")
    return shutil.which("java")


def _java_version(java: str) -> int:
    """Ask a Java for its major version; `1.8.0` is 8."""
    try:
        done = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=JAVA_CHECK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaError(f"{java} does not run ({error}); install a Java: {_DEBIAN_JAVA}") from error
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    if found is None:
        raise JavaError(f"{java} -version does not name a version; install a Java: {_DEBIAN_JAVA}")
    return int(found.group(1))
