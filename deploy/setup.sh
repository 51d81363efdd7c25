#!/bin/sh
# What `make` needs before it can run driftline, each step idempotent:
#
#   deploy/setup.sh python VENV   a virtual environment with the locked dependencies and driftline itself
#   deploy/setup.sh java          Java and Maven for the local Kafka and registry: installed where that needs
#                                 no password (root on Debian or Ubuntu), else one line naming the command
#   deploy/setup.sh monitoring    Prometheus and Alertmanager, which tests of the alerting use and skip without:
#                                 installed where that needs no password, else one line, and no failure
set -eu

APT_JAVA="openjdk-17-jre-headless maven"
APT_MONITORING="prometheus prometheus-alertmanager" # each package is named as its program

say() { echo "driftline set-up: $*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Installs only where no password is asked for; a failure shows in what is looked for afterwards.
apt_install() {
    { [ "$(id -u)" = 0 ] && have apt-get; } || return 0
    say "installing $*"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null || true
}

find_python() {
    for candidate in python3.13 python3.12 python3.11 python3; do
        if have "$candidate" && "$candidate" -c "import sys, $1; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# Debian ships Python without the part that makes virtual environments.
require_python() {
    if [ -n "$(find_python "venv, ensurepip")" ]; then return; fi
    if [ -z "$(find_python sys)" ]; then
        apt_install python3 python3-venv
        [ -n "$(find_python "venv, ensurepip")" ] ||
            fail "no Python 3.11 or newer on the PATH; install one (Debian: apt-get install python3 python3-venv)"
    else
        package=$("$(find_python sys)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        apt_install "$package"
        [ -n "$(find_python "venv, ensurepip")" ] ||
            fail "$(find_python sys) cannot make virtual environments; install that part: apt-get install $package"
    fi
}

setup_python() {
    venv=$1
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        require_python
        python=$(find_python "venv, ensurepip")
        say "making $venv with $("$python" --version)"
        "$python" -m venv --clear "$venv"
    fi
    say "installing the locked dependencies into $venv"
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
}

java_is_new_enough() {
    java=java
    if [ -n "${JAVA_HOME:-}" ] && [ -x "$JAVA_HOME/bin/java" ]; then java=$JAVA_HOME/bin/java; fi
    version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${version:-0}" -ge 17 ]
}

java_is_ready() { java_is_new_enough && have mvn; }

setup_java() {
    if java_is_ready; then return; fi
    # An existing cluster needs neither.
    if [ -n "${DRIFTLINE_BOOTSTRAP_SERVERS:-}" ] && [ -n "${DRIFTLINE_REGISTRY_URL:-}" ]; then return; fi
    # shellcheck disable=SC2086
    apt_install $APT_JAVA
    if java_is_ready; then return; fi
    fail "Java 17 or newer and Maven are needed for a local Kafka; install them (Debian: apt-get install $APT_JAVA)" \
        "or use an existing cluster: export DRIFTLINE_BOOTSTRAP_SERVERS=HOST:9092 DRIFTLINE_REGISTRY_URL=http://HOST:8081"
}

setup_monitoring() {
    missing=""
    for package in $APT_MONITORING; do have "$package" || missing="$missing $package"; done
    if [ -z "$missing" ]; then return; fi
    # shellcheck disable=SC2086
    apt_install --no-install-recommends $missing
    for package in $missing; do
        if ! have "$package"; then
            say "without Prometheus and Alertmanager the tests of the alerting are skipped" \
                "(Debian: apt-get install --no-install-recommends$missing)"
            return
        elif have systemctl; then
            # Debian starts it as a service; only the program is wanted.
            systemctl disable --now "$package" >/dev/null 2>&1 || true
        fi
    done
}

case "${1:-}" in
    python) setup_python "$2" ;;
    java) setup_java ;;
    monitoring) setup_monitoring ;;
    *) fail "usage: deploy/setup.sh python VENV | java | monitoring" ;;
esac
