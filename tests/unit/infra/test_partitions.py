"""A run key names the content of a partition: it changes with everything that decides it, and with nothing else."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infra.partitions import run_key

_paths = st.lists(st.text(min_size=1, max_size=8), max_size=5, unique=True)
_configs = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=4)
_days = st.dates()


@given(_paths, _configs, _days, st.randoms())
def test_the_order_of_inputs_and_of_settings_does_not_count(
    paths: list[str], config: dict[str, Any], when: date, chance: random.Random
) -> None:
    shuffled_paths = chance.sample(paths, len(paths))
    shuffled_config = dict(chance.sample(list(config.items()), len(config)))
    assert run_key("events", when, paths, config, 1) == run_key("events", when, shuffled_paths, shuffled_config, 1)


@given(_paths, _configs, _days, _days)
def test_two_days_never_share_a_key(paths: list[str], config: dict[str, Any], one: date, other: date) -> None:
    keys_are_equal = run_key("events", one, paths, config, 1) == run_key("events", other, paths, config, 1)
    assert keys_are_equal == (one == other)


@given(_paths, _paths)
def test_other_inputs_give_another_key(one: list[str], other: list[str]) -> None:
    when = date(2024, 1, 1)
    assert (run_key("events", when, one, {}, 1) == run_key("events", when, other, {}, 1)) == (set(one) == set(other))


def test_asset_settings_and_version_each_change_the_key() -> None:
    when = date(2024, 1, 1)
    keys = {
        run_key("events", when, ["a"], {"cap": 1}, 1),
        run_key("sessions", when, ["a"], {"cap": 1}, 1),
        run_key("events", when, ["a"], {"cap": 2}, 1),
        run_key("events", when, ["a"], {"cap": 1}, 2),
    }
    assert len(keys) == 4


def test_a_key_is_the_same_on_every_machine() -> None:
    # Worked out once with sha256sum over the JSON text; a changed key would rebuild every partition of every shop.
    assert run_key("events", date(2018, 1, 5), ["b", "a"], {"cap": 50}, 3) == (
        "a97cdfb98e7afe014d09568754163e8101cc1a8bf02490e0e7f13d31e29c57f5"
    )
