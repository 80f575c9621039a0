"""What the feature store holds: entities, views over lake tables, one on-demand view, one service per model.

A view's features are the columns of its table's contract that are neither key nor partition, so a column appended to a
contract is a feature without a word here. A feature's full name is `<view>__<feature>`, and a view's name begins with
its entity's (`common.feature_names`). A row of a daily view may be used from `available_at` on (00:00 UTC of the day
after the day it counts): the event timestamp that Feast joins on.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from common.feature_names import entity_of
from common.truth import refuse_truth
from infra.contracts import Contract, load_contract
from infra.errors import DataError

PROJECT = "plumbline"
EVENT_TIME = "available_at"
AS_OF_UNIX = "as_of_unix"
INDEX_VERSION = "index_version"


@dataclass(frozen=True)
class Entity:
    """Something that features describe; `key` is its string id."""

    name: str
    key: str


@dataclass(frozen=True)
class DailyView:
    """A view over a daily lake table. A row older than `ttl` has nothing left to say: counters reach back 365 days."""

    name: str
    entity: Entity
    table: str
    ttl: timedelta = timedelta(days=365)

    def __post_init__(self) -> None:
        refuse_truth([self.table], self.name, "feature_store/definitions.py")
        if entity_of(f"{self.name}__feature") != self.entity.name:
            raise DataError(
                f"The view {self.name!r} is keyed by {self.entity.key}, and its name does not say so.",
                where="feature_store/definitions.py",
                why="Whoever reads a training set tells features of the user from those of the item by it.",
                do=f"Call it {self.entity.name}_{self.name}.",
            )

    @property
    def contract(self) -> Contract:
        """The contract of the table behind the view."""
        return load_contract(self.table)

    @property
    def features(self) -> tuple[str, ...]:
        """Feature names: the contract's columns without key and partition."""
        contract = self.contract
        return tuple(name for name in contract.names if name not in (*contract.key, contract.partition, EVENT_TIME))

    @property
    def types(self) -> Mapping[str, str]:
        """The contract's type of the key and of each feature."""
        return {column.name: column.type for column in self.contract.columns}


@dataclass(frozen=True)
class IndexView(DailyView):
    """A view over a table of ordered lists, of which one whole partition is in force: `feature_store.index`.

    An online row has the list of a key: its columns `listed`, each in the order of the places, and the version.
    """

    listed: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """The listed columns and the version of the index."""
        return (*self.listed, INDEX_VERSION)

    @property
    def types(self) -> Mapping[str, str]:
        """Arrays of what is listed, and text."""
        texts = dict.fromkeys((self.entity.key, INDEX_VERSION), "string")
        columns = {column.name: column.type for column in self.contract.columns}
        return {**texts, **{name: f"array<{columns[name]}>" for name in self.listed}}


USER = Entity("user", "user_id")
ITEM = Entity("item", "item_id")
QUERY = Entity("query", "query")
TRIGGER = Entity("trigger", "trigger_key")  # <version of the index>|<kind>|<trigger>
ENTITIES = (USER, ITEM, QUERY, TRIGGER)
USER_DAILY = DailyView("user_daily", USER, "user_stats")
ITEM_DAILY = DailyView("item_daily", ITEM, "item_stats")
QUERY_DAILY = DailyView("query_daily", QUERY, "query_stats")
# As old as the oldest event of a history: who has a history has a profile.
USER_PROFILE = DailyView("user_profile", USER, "user_profiles", ttl=timedelta(days=730))
DAILY_VIEWS = (USER_DAILY, ITEM_DAILY, QUERY_DAILY, USER_PROFILE)
# Rows of these are told as they are made (`feature_store.push`). What somebody did three days ago calls for nothing.
USER_HINTS = DailyView("user_hints", USER, "user_hints", ttl=timedelta(days=3))
PUSHED_VIEWS = (USER_HINTS,)
TRIGGER_QUERIES = IndexView(
    "trigger_queries", TRIGGER, "trigger_queries", timedelta(days=14), listed=("query", "score", "people")
)
VIEWS = (*DAILY_VIEWS, *PUSHED_VIEWS, TRIGGER_QUERIES)
USER_RECENCY = "user_recency"
USER_RECENCY_FEATURES = {"days_since_last_event": "double", "is_cold": "boolean"}
USERS = "users_v1"  # what is known of a user before anything is asked about an item
_OF_USER_AND_ITEM = ("user_daily", "item_daily", "user_profile", USER_RECENCY)
SERVICES: Mapping[str, tuple[str, ...]] = {
    "next_item_v1": _OF_USER_AND_ITEM,
    "semantic_judge_v1": _OF_USER_AND_ITEM,
    "hint_ranker_v1": ("user_daily", "query_daily", "user_profile", USER_RECENCY),
    USERS: ("user_daily", "user_profile", USER_RECENCY),
    "user_hints_v1": (USER_HINTS.name,),
    "trigger_queries_v1": (TRIGGER_QUERIES.name,),
}

# Names of feast.types, by contract type; arrays are Array(<name>).
_FEAST_TYPES = {
    "string": "String",
    "long": "Int64",
    "integer": "Int32",
    "double": "Float64",
    "boolean": "Bool",
    "timestamp": "UnixTimestamp",
}


def service_views(service: str) -> tuple[DailyView, ...]:
    """The daily views that a feature service reads.

    Raises:
        DataError: there is no such service.
    """
    if service not in SERVICES:
        raise DataError(
            f"There is no feature service {service!r}.",
            where="feature_store/definitions.py",
            do=f"Choose one of: {', '.join(SERVICES)}.",
        )
    return tuple(view for view in VIEWS if view.name in SERVICES[service])


def feast_objects(sources: Mapping[str, Any]) -> list[Any]:
    """The Feast objects that stand on the given data sources (table -> FileSource or SparkSource).

    All tables give all objects; for a training set its service's tables are enough.
    """
    import feast

    entities = {
        e.name: feast.Entity(name=e.name, join_keys=[e.key], value_type=feast.ValueType.STRING) for e in ENTITIES
    }
    daily = [view for view in VIEWS if view.table in sources]
    views: dict[str, Any] = {v.name: _feature_view(v, entities[v.entity.name], sources[v.table]) for v in daily}
    objects = [*entities.values(), *sources.values()]
    if USER_DAILY.name in views:
        request = feast.RequestSource(
            name="request_time", schema=[feast.Field(name=AS_OF_UNIX, dtype=_feast_type("long"))]
        )
        views[USER_RECENCY] = _recency_view(views[USER_DAILY.name], request)
        objects.append(request)
    services = [
        feast.FeatureService(name=name, features=[views[view] for view in members])
        for name, members in SERVICES.items()
        if views.keys() >= set(members)
    ]
    return [*objects, *views.values(), *services]


def _feature_view(view: DailyView, entity: Any, source: Any) -> Any:
    import feast

    names = (view.entity.key, *view.features)
    return feast.FeatureView(
        name=view.name,
        entities=[entity],
        ttl=view.ttl,
        schema=[feast.Field(name=name, dtype=_feast_type(view.types[name])) for name in names],
        source=source,
        online=True,
        description=view.contract.grain,
    )


def _recency_view(user_daily: Any, request: Any) -> Any:
    import feast

    from feature_store.on_demand import recency

    # Feast's decorator renames the function's module, so that a second use finds no source: the class is used instead.
    return feast.OnDemandFeatureView(
        name=USER_RECENCY,
        sources=[user_daily, request],
        schema=[feast.Field(name=n, dtype=_feast_type(t)) for n, t in USER_RECENCY_FEATURES.items()],
        udf=recency,
        udf_string=inspect.getsource(recency),
        mode="pandas",
    )


def _feast_type(contract_type: str) -> Any:
    from feast import types

    if contract_type.startswith("array<"):
        return types.Array(_feast_type(contract_type.removeprefix("array<").removesuffix(">")))
    return getattr(types, _FEAST_TYPES[contract_type])
