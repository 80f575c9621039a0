"""The feature definitions, the contracts of the statistics and the contracts of training sets say the same."""

from __future__ import annotations

import pytest

from feature_store.definitions import DAILY_VIEWS, EVENT_TIME, SERVICES, USER_RECENCY, USER_RECENCY_FEATURES
from feature_store.training_sets import JUDGE, TRAINING_SETS, TrainingSet
from infra.contracts import load_contract
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
