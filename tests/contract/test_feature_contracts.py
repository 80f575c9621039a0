"""The feature definitions, the contracts of the statistics and the contracts of training sets say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.feature_names import entity_of
from feature_store.definitions import (
    DAILY_VIEWS,
    ENTITIES,
    EVENT_TIME,
    ITEM,
    SERVICES,
    USER,
    USER_RECENCY,
    USER_RECENCY_FEATURES,
    USERS,
    DailyView,
    feast_objects,
)
from feature_store.training_sets import JUDGE, NEXT_ITEM, TRAINING_SETS, TrainingSet
from infra.contracts import load_contract
from infra.errors import DataError
from spark_jobs import judge_examples

every_training_set = pytest.mark.parametrize("wanted", TRAINING_SETS.values(), ids=TRAINING_SETS)


def types_of(table: str) -> dict[str, str]:
    return {column.name: column.type for column in load_contract(table).columns}


def feature_types(service: str) -> dict[str, str]:
    """Full name to contract type of every feature of a service, in order."""
    daily = {
        f"{view.name}__{feature}": types_of(view.table)[feature]
        for view in DAILY_VIEWS
        if view.name in SERVICES[service]
        for feature in view.features
    }
    return daily | {f"{USER_RECENCY}__{name}": kind for name, kind in USER_RECENCY_FEATURES.items()}


@every_training_set
def test_a_training_set_is_the_sample_with_every_feature_of_its_service(wanted: TrainingSet) -> None:
    expected = types_of(wanted.samples) | feature_types(wanted.service)
    assert list(types_of(wanted.table).items()) == list(expected.items())


def test_the_judge_s_training_set_is_looked_at_again_when_its_samples_are() -> None:
    assert JUDGE.again == judge_examples.JOB.again


@every_training_set
def test_a_training_set_keeps_the_sample_s_key_and_partition(wanted: TrainingSet) -> None:
    ours, theirs = load_contract(wanted.table), load_contract(wanted.samples)
    assert (ours.key, ours.partition) == (theirs.key, theirs.partition)


def test_every_view_has_a_string_key_and_the_time_from_which_a_row_may_be_used() -> None:
    for view in DAILY_VIEWS:
        types = types_of(view.table)
        assert (types[view.entity.key], types[EVENT_TIME]) == ("string", "timestamp")
        assert not {view.entity.key, EVENT_TIME, view.contract.partition} & set(view.features)


def test_a_column_of_the_training_set_tells_of_whom_it_is_as_the_views_are_keyed() -> None:
    """Who trains has no definitions: by this it tells what is known of a user from what gives the answer away."""
    named = {entity.name: entity.key for entity in ENTITIES}
    keyed = {view.name: view.entity.key for view in DAILY_VIEWS} | {USER_RECENCY: USER.key}
    for name in types_of(NEXT_ITEM.table).keys() - types_of(NEXT_ITEM.samples).keys():
        assert named[entity_of(name)] == keyed[name.partition("__")[0]]
    assert all(not entity_of(name) for name in types_of(NEXT_ITEM.samples))


def test_what_is_computed_when_asked_stands_on_views_of_the_entity_that_it_is_named_for(tmp_path: Path) -> None:
    import feast

    sources = {view.table: feast.FileSource(name=view.table, path=str(tmp_path)) for view in DAILY_VIEWS}
    computed = [one for one in feast_objects(sources) if isinstance(one, feast.OnDemandFeatureView)]
    assert [one.name for one in computed] == [USER_RECENCY]
    for one in computed:
        under = one.source_feature_view_projections.values()
        assert under and {entity_of(f"{source.name}__x") for source in under} == {entity_of(f"{one.name}__x")}


def test_the_service_of_users_has_all_of_the_training_sets_views_of_users_and_no_other() -> None:
    of_users = [view for view in SERVICES[NEXT_ITEM.service] if entity_of(f"{view}__x") == USER.name]
    assert list(SERVICES[USERS]) == of_users


def test_a_view_whose_name_does_not_say_what_it_is_keyed_by_is_refused() -> None:
    with pytest.raises(DataError, match="is keyed by item_id, and its name does not say so"):
        DailyView("user_tastes", ITEM, "item_stats")
