"""The profile: one typed, frozen settings object, read from `infra/profiles/<name>.yaml` and environment variables.

`PLUMBLINE_PROFILE` chooses the file. Every value can be overridden by `PLUMBLINE__<SECTION>__<KEY>` (YAML syntax for
the value), e.g. `PLUMBLINE__LAKE__KEEP_DAYS=7`. In the YAML, `${home}`, `${checkout}` and `${env:NAME}` are replaced.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from common.config import parse_yaml, read_yaml
from infra.errors import DataError

CHECKOUT = Path(__file__).resolve().parent.parent
_PROFILES = Path(__file__).resolve().parent / "profiles"
_PREFIX = "PLUMBLINE__"
_VARIABLE = re.compile(r"\$\{(env:)?(\w+)\}")


class ProfileError(DataError):
    """The profile has an unknown key, or lacks a value."""


Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LakeSettings(_Section):
    """Where the Iceberg catalogue and the data files are."""

    catalog_uri: str
    warehouse: str
    keep_days: NonNegativeInt


class SparkSettings(_Section):
    """The Spark master and its configuration."""

    master: str
    conf: dict[str, str]


class SampleSettings(_Section):
    """The cut dates of the split in time: train < `valid_from` <= validation < `test_from` <= test.

    The same date twice leaves validation without a day.
    """

    valid_from: date
    test_from: date

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.valid_from > self.test_from:
            raise ValueError("a valid_from that is not after test_from")
        return self


class FeastSettings(_Section):
    """Feast's registry and stores; `online_store` is passed to Feast as it stands."""

    offline_store: Literal["duckdb", "spark"]
    registry_uri: str
    online_store: dict[str, Any]


class MlflowSettings(_Section):
    """The tracking store and the root of its artifacts."""

    tracking_uri: str
    artifact_root: str


class StagesSettings(_Section):
    """How many folders stay of the newest training runs of each system, and of the newest days of each of its jobs."""

    keep: NonNegativeInt


class LauncherSettings(_Section):
    """How a training stage runs: a local process, or a pod with GPUs."""

    kind: Literal["local", "kubernetes"]
    image: str | None
    namespace: str | None
    gpu_pool: str
    gpu_slots: NonNegativeInt


class AirflowApiSettings(_Section):
    """An Airflow that somebody else runs: where its API server answers, and who asks."""

    url: str
    user: str
    password: SecretStr


class AirflowSettings(_Section):
    """Airflow's home and API server (None: the one that `make up` starts), the alert hook, whether approval is given
    by flag, whether daily DAGs start by the clock, and whether tasks are forked by a warm parent."""

    home: Path
    api: AirflowApiSettings | None
    alert_webhook: str | None
    approve_by_flag: bool
    follow_clock: bool
    warm_starts: bool


class Ports(_Section):
    """Loopback ports of `make up`."""

    airflow: Port
    mlflow: Port
    feast: Port
    report: Port


class Profile(_Section):
    """All settings of one installation."""

    name: str
    home: Path
    landing: Path
    landing_origin: Literal["real", "simulated"]
    shared_data: Path | None
    training_preset: Literal["demo", "bench", "production"]
    systems: tuple[str, ...] | None
    code_commit: str | None
    database_uri: str
    lake: LakeSettings
    spark: SparkSettings
    samples: SampleSettings
    feast: FeastSettings
    mlflow: MlflowSettings
    stages: StagesSettings
    launcher: LauncherSettings
    airflow: AirflowSettings
    ports: Ports


def load_profile(name: str | None = None, environ: Mapping[str, str] = os.environ) -> Profile:
    """Read the profile `name` (default: `PLUMBLINE_PROFILE`, else `local`).

    Raises:
        ProfileError: no such profile, an unknown key, or a value that is missing or of the wrong type.
        DataError: its file is no YAML.
    """
    chosen = name or environ.get("PLUMBLINE_PROFILE", "local")
    path = _PROFILES / f"{chosen}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in _PROFILES.glob("*.yaml")))
        raise ProfileError(f"There is no profile {chosen!r}.", where=str(_PROFILES), do=f"Choose one of: {known}.")
    raw: dict[str, Any] = read_yaml(path)
    for variable in sorted(environ):
        if variable.startswith(_PREFIX):
            _override(raw, variable, environ[variable])
    raw["home"] = _absolute(_fill(raw.get("home"), {"checkout": str(CHECKOUT)}, environ, "home", path), "home")
    known_names = {"checkout": str(CHECKOUT), "home": str(raw["home"])}
    filled = _fill(raw, known_names, environ, "", path)
    filled["landing"] = _absolute(filled.get("landing"), "landing")
    try:
        return Profile(name=chosen, **filled)
    except ValidationError as error:
        why = "\n         ".join(map(_fault, error.errors()))
        raise ProfileError("The profile does not fit.", where=f"environment, or {path}", why=why, do=_REMEDY) from error


def code_commit(profile: Profile) -> str:
    """The commit of the running code: the profile's, else what git says, else `unknown`."""
    if profile.code_commit is not None:
        return profile.code_commit
    try:
        asked = subprocess.run(["git", "-C", str(CHECKOUT), "rev-parse", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return asked.stdout.strip() or "unknown"


_REMEDY = "Correct the variable where it is set, else the file."
# What a value may be, by the first word of the name that pydantic has for what is wrong with it.
_ALLOWED = {
    "bool": "true or false",
    "date": "a day such as 2018-01-05",
    "dict": "keys with their values",
    "extra": "nothing, as there is no such setting",
    "greater": "{ge} or more",
    "int": "a whole number",
    "less": "{le} or less",
    "literal": "{expected}",
    "model": "keys with their values",
    "path": "a path",
    "string": "a text",
    "tuple": "a list such as [a, b]",
    "value": "{error}",
}


def _fault(fault: ErrorDetails) -> str:
    """A setting, the variable that overrides it, what was found there, and what is allowed."""
    keys = [str(key) for key in fault["loc"]]
    name = f"{'.'.join(keys)} ({_PREFIX}{'__'.join(keys).upper()})"
    word = fault["type"].split("_")[0]
    if word == "missing":
        return f"{name} is missing."
    found = "not as it must be" if keys[:2] == ["airflow", "api"] else repr(fault["input"])  # a password may be in it
    allowed = _ALLOWED[word].format(**fault.get("ctx", {})) if word in _ALLOWED else fault["msg"]
    return f"{name} is {found}; allowed is {allowed}."


def _override(raw: dict[str, Any], variable: str, value: str) -> None:
    keys = variable.removeprefix(_PREFIX).lower().split("__")
    node: Any = raw
    for key in keys[:-1]:
        node = node.get(key) if isinstance(node, dict) else None
    free_form = keys[0] in ("spark", "feast") and len(keys) > 2
    if not isinstance(node, dict) or (keys[-1] not in node and not free_form):
        raise ProfileError(
            f"Unknown setting {variable}.", where="environment", do="See infra/profiles/local.yaml for all keys."
        )
    node[keys[-1]] = value if isinstance(node.get(keys[-1]), str) else _read(variable, value)


def _read(variable: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        why = str(error).replace("\n", " ")
        do = "Quote the value as YAML does, e.g. '\"[\"'."
        raise ProfileError(f"The value of {variable} cannot be read.", where="environment", why=why, do=do) from error


def _absolute(folder: Any, key: str) -> str:
    """A folder as every process finds it: those that we start work in folders of their own."""
    if not isinstance(folder, str) or not folder.strip():
        do = f"Name a folder: PLUMBLINE__{key.upper()}=/path."
        raise ProfileError(f"The value of {key!r} names no folder: {folder!r}.", where="environment or profile", do=do)
    return os.path.abspath(os.path.expanduser(folder))  # noqa: PTH100, PTH111 - without `..`, links as they are


def _fill(node: Any, names: Mapping[str, str], environ: Mapping[str, str], key: str, path: Path) -> Any:
    if isinstance(node, dict):
        return {k: _fill(v, names, environ, f"{key}.{k}".lstrip("."), path) for k, v in node.items()}
    if not isinstance(node, str):
        return node

    def replace(match: re.Match[str]) -> str:
        found = environ.get(match[2]) if match[1] else names.get(match[2])
        if found is None:
            raise ProfileError(
                f"The value of {key!r} is missing: {match[0]} is not set.",
                where=str(path),
                do=f"Set {match[2]} in the environment.",
            )
        return found

    return _VARIABLE.sub(replace, node)
