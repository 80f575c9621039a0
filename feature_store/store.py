"""Opening Feast for a profile, and applying definitions to its registry: one writer at a time, checked afterwards.

Feast's `apply` takes no lock, and two at once can drop objects silently (feast #6663); it never removes what is no
longer defined. So an apply here holds a file lock and reads the registry back: any difference is an error.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from common.folders import make_folder
from feature_store.definitions import PROJECT
from infra.errors import PlumblineError, TransientError
from infra.profile import Profile

_LOCK_SECONDS = 600
_DUMMY_ENTITY = "__dummy"  # Feast's own, added by every apply
# Dates and materialised intervals (`meta`); the pickle of a function (`body`), whose source (`body_text`) is compared.
_UNDEFINED = frozenset({"meta", "body"})


class RegistryMismatch(PlumblineError):
    """The registry does not hold exactly what is defined."""


def feast_home(profile: Profile) -> Path:
    """Where the registry, the online store and the links of the local profile live."""
    return profile.home / "feast"


def scratch_profile(profile: Profile, folder: str) -> Profile:
    """The profile with a registry and stores of its own in `folder`: nothing done there touches the shared ones."""
    feast = profile.feast.model_copy(
        update={
            "registry_uri": f"sqlite:///{folder}/registry.db",
            "online_store": {"type": "sqlite", "path": f"{folder}/online.db"},
        }
    )
    return profile.model_copy(update={"home": Path(folder), "feast": feast})


@contextlib.contextmanager
def opened_store(profile: Profile) -> Iterator[Any]:
    """A FeatureStore on the profile's registry and stores, for as long as it is needed."""
    import ibis  # type: ignore[import-untyped]

    try:
        yield _feature_store(profile)
    finally:
        # Feast's DuckDB store leaves the rows it was asked about in the process's default connection.
        ibis.options.default_backend = None


def _feature_store(profile: Profile) -> Any:
    from feast import FeatureStore, RepoConfig

    # Feast switches deprecation warnings on at import; those of its own libraries are not for our logs.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ibis")
    home = make_folder(feast_home(profile))
    registry = {"registry_type": "sql", "path": profile.feast.registry_uri, "cache_ttl_seconds": 5}
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=registry,
        offline_store=offline_store(profile),
        online_store=dict(profile.feast.online_store),
        entity_key_serialization_version=3,
        repo_path=home,
    )
    return FeatureStore(config=config)


def offline_store(profile: Profile) -> dict[str, Any]:
    """Feast's configuration of the profile's offline store."""
    if profile.feast.offline_store == "duckdb":
        return {"type": "duckdb"}
    return {"type": "spark", "spark_conf": {"spark.master": profile.spark.master, **profile.spark.conf}}


@contextlib.contextmanager
def single_writer(profile: Profile) -> Iterator[None]:
    """Hold the lock of everything that writes the registry or the online store.

    Raises:
        TransientError: another writer held it for ten minutes.
    """
    path = feast_home(profile) / "writer.lock"
    make_folder(path.parent)
    try:
        with FileLock(path, timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        raise TransientError(
            "Another process is writing the feature store.", where=str(path), do="Wait for it, or stop it."
        ) from error


def apply(store: Any, objects: Sequence[Any]) -> None:
    """Register the objects and read them back; call it under `single_writer` for a shared registry.

    Raises:
        RegistryMismatch: the registry then holds something else, or lacks something.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="On demand feature view is an experimental feature")
        store.apply(list(objects))
    check_registry(store, objects)


def check_registry(store: Any, objects: Sequence[Any]) -> None:
    """Compare the registry (not its cache) with the objects, by kind, name and specification.

    Raises:
        RegistryMismatch: naming every object that is missing, foreign or different.
    """
    wanted = {_identity(item): _specification(item) for item in objects}
    present = {_identity(item): _specification(item) for item in _registered(store)}
    faults = [f"missing {name}" for name in sorted(wanted.keys() - present.keys())]
    faults += [f"foreign {name}" for name in sorted(present.keys() - wanted.keys())]
    faults += [f"different {name}" for name in sorted(wanted.keys() & present.keys()) if wanted[name] != present[name]]
    if faults:
        raise RegistryMismatch(
            f"The feature registry does not fit the definitions: {', '.join(faults)}.",
            where=str(store.config.registry.path).rsplit("@", 1)[-1],
            why="Another process applied other definitions, or a definition was removed from the code.",
            do="Delete the registry and run `python -m feature_store apply`: all that it holds is defined in the code.",
        )


def _registered(store: Any) -> list[Any]:
    registry, project = store.registry, store.project
    found = [e for e in registry.list_entities(project, allow_cache=False) if e.name != _DUMMY_ENTITY]
    found += registry.list_data_sources(project, allow_cache=False)
    found += registry.list_feature_views(project, allow_cache=False)
    found += registry.list_on_demand_feature_views(project, allow_cache=False)
    found += registry.list_stream_feature_views(project, allow_cache=False)
    found += registry.list_feature_services(project, allow_cache=False)
    return found


def _identity(item: Any) -> str:
    return f"{type(item).__name__} {item.name}"


def _specification(item: Any) -> Any:
    """The part of an object's record that its definition decides."""
    from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

    return _without(MessageToDict(item.to_proto(), preserving_proto_field_name=True), _UNDEFINED)


def _without(node: Any, keys: frozenset[str]) -> Any:
    if isinstance(node, dict):
        return {key: _without(value, keys) for key, value in node.items() if key not in keys}
    return [_without(value, keys) for value in node] if isinstance(node, list) else node
