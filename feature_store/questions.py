"""What the feature server may be asked, and what is wrong with a question, in words for who asked.

Feast answers most wrong questions with 500 and the text of whatever failed inside of it. Here each is refused before,
with the place in the body and what is expected there, in the form that FastAPI gives its own refusals.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.definitions import AS_OF_UNIX, ENTITIES, SERVICES, USER_RECENCY, USER_RECENCY_FEATURES, VIEWS

MAX_ROWS = 10_000
MAX_BYTES = 5_000_000
_IDS = tuple(entity.key for entity in ENTITIES)
_FEATURES = {view.name: view.features for view in VIEWS} | {USER_RECENCY: tuple(USER_RECENCY_FEATURES)}
_KEYS = {view.name: (view.entity.key,) for view in VIEWS} | {USER_RECENCY: (_IDS[0], AS_OF_UNIX)}
_FLAGS = ("full_feature_names", "include_feature_view_version_metadata")
_KNOWN = ("entities", "feature_service", "features", *_FLAGS)
# The last second that the nanoseconds of pandas reach, in the year 2262; milliseconds are above it since April 1970.
_LAST_SECOND = 9_223_372_036


@dataclass(frozen=True)
class Fault:
    """What is wrong with a body, and where: keys and positions from the outside to the inside."""

    msg: str
    loc: tuple[str | int, ...] = ()

    def detail(self) -> dict[str, Any]:
        """As FastAPI tells it."""
        return {"loc": ["body", *self.loc], "msg": self.msg}


def faults(body: bytes) -> list[Fault]:
    """What is wrong with the body of a question; empty where Feast can answer it."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return [Fault("expected a JSON object in UTF-8")]
    if not isinstance(asked, dict):
        return [Fault("expected a JSON object")]
    found = [Fault(f"unknown key; known: {', '.join(_KNOWN)}", (key,)) for key in asked if key not in _KNOWN]
    found += [Fault("expected true or false", (f,)) for f in _FLAGS if not isinstance(asked.get(f, False), bool)]
    features = _features(asked)
    if isinstance(features, Fault):
        return [*found, features]
    repeated = sorted(name for name, count in Counter(name for _, name in features).items() if count > 1)
    if repeated and asked.get("full_feature_names", False) is False:
        found.append(Fault(f"expected true: several views have {', '.join(repeated)}", ("full_feature_names",)))
    return [*found, *_entity_faults(asked.get("entities"), {key for view, _ in features for key in _KEYS[view]})]


def _features(asked: dict[str, Any]) -> list[tuple[str, str]] | Fault:
    """The features asked for, as (view, name)."""
    service, names = asked.get("feature_service"), asked.get("features") or []
    if (service is None) == (not names):
        return Fault("expected one of the two: feature_service, or features", ("feature_service",))
    if service is not None:
        if not isinstance(service, str) or service not in SERVICES:
            return Fault(f"no such service; known: {', '.join(SERVICES)}", ("feature_service",))
        return [(view, name) for view in SERVICES[service] for name in _FEATURES[view]]
    if not isinstance(names, list):
        return Fault("expected a list of VIEW:FEATURE", ("features",))
    return _named(names)


def _named(names: Sequence[Any]) -> list[tuple[str, str]] | Fault:
    found = []
    for at, name in enumerate(names):
        view, _, feature = name.partition(":") if isinstance(name, str) else ("", "", "")
        if feature not in _FEATURES.get(view, ()):
            known = (
                f"its features: {', '.join(_FEATURES[view])}" if view in _FEATURES else f"views: {', '.join(_FEATURES)}"
            )
            return Fault(f"no such feature; expected VIEW:FEATURE; {known}", ("features", at))
        found.append((view, feature))
    return found


def _entity_faults(entities: Any, needed: set[str]) -> Iterator[Fault]:
    if not isinstance(entities, dict):
        yield Fault(f"expected an object with a list for each of: {', '.join(sorted(needed))}", ("entities",))
        return
    for key in sorted(needed - entities.keys()):
        yield Fault(f"missing; expected {_expected(key)}", ("entities", key))
    for key, values in entities.items():
        yield from _value_faults(key, values)
    lengths = {key: len(values) for key, values in entities.items() if isinstance(values, list)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} {length}" for key, length in lengths.items())
        yield Fault(f"expected lists of one length; found {told}", ("entities",))
    if max(lengths.values(), default=0) > MAX_ROWS:
        yield Fault(f"expected at most {MAX_ROWS} rows; ask in several calls", ("entities",))


def _value_faults(key: str, values: Any) -> Iterator[Fault]:
    if key not in (*_IDS, AS_OF_UNIX):
        yield Fault(f"unknown key; known: {', '.join((*_IDS, AS_OF_UNIX))}", ("entities", key))
    elif not isinstance(values, list) or not values:
        yield Fault(f"expected a list with at least one value: {_expected(key)}", ("entities", key))
    else:
        fits = _is_second if key == AS_OF_UNIX else _is_id
        at = next((at for at, value in enumerate(values) if not fits(value)), None)
        if at is not None:
            yield Fault(f"expected {_expected(key)}", ("entities", key, at))


def _expected(key: str) -> str:
    if key == AS_OF_UNIX:
        return "whole seconds since 1970 (no milliseconds), such as 1525132800"
    return 'ids that are text and not empty, such as "1029"'


def _is_second(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LAST_SECOND


def _is_id(value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no key of the store holds
        return False
    return True
