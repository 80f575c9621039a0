"""Judge pairs and examples of small shops that are worked out by hand, and of the bundled part of Office."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from infra.contracts import load_contract
from infra.lake import Lake
from infra.profile import CHECKOUT, Profile, load_profile
from infra.quality.rules import rules_of
from spark_jobs import histories, judge_examples, judge_pairs
from spark_jobs.engine.job import on_days, run
from spark_jobs.leakage import audit
from spark_jobs.user_stats import JOB as USER_STATS

OFFICE = CHECKOUT / "spark_jobs" / "sample_data" / "landing" / "events"
FIRST = date(2018, 1, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(6)]
CUTS = {"valid_from": "2018-01-04", "test_from": "2018-01-06"}
Rows = list[dict[str, Any]]
ITEMS = [{"snapshot_date": FIRST, "source": "shop", "item_id": item, "title": item} for item in "abcdefgh"]


def at(day: int, hour: int = 10, minute: int = 0) -> datetime:
    """A moment of the so many-th day, from 1."""
    return datetime(2018, 1, day, hour, minute, tzinfo=UTC)


def act(user: str, item: str, time: datetime, rating: float | None = None) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event_time": time, "rating": rating}


def shown(request: str, user: str, items: str, time: datetime) -> Rows:
    """A list of items of one letter, from the top."""
    whole = {"policy_version": "p", "item_chance": 0.5, "list_chance": 0.1, "exposure_time": time}
    row = whole | {"exposure_date": time.date(), "request_id": request, "user_id": user}
    return [{**row, "item_id": item, "position": place} for place, item in enumerate(items, 1)]


def search(request: str, user: str, query: str, time: datetime, item: str | None = None) -> dict[str, Any]:
    row = {"search_date": time.date(), "request_id": request, "user_id": user, "search_time": time, "source": "typed"}
    return {**row, "query": query, "item_id": item}


def as_table(frame: DataFrame) -> DataFrame:
    """As a job reads it: rows that are there, not the plan that makes them."""
    return frame.localCheckpoint()


class Built:
    """The judge's tables of a shop, in one pass over all days, as plain rows."""

    def __init__(
        self, spark: SparkSession, make_frame: Any, events: Rows, lists: Any = (), searches: Any = (), **config: Any
    ) -> None:
        self.frames: dict[str, DataFrame] = {
            "events": make_frame("events", events),
            "exposures": make_frame("exposures", lists),
            "searches": make_frame("searches", searches),
            "items": make_frame("items", ITEMS),
        }
        self.spark, self.config = spark, config
        self.frames["histories"] = as_table(histories.build(spark, self.frames, DAYS, histories.CONFIG))
        self.frames["judge_pairs"] = as_table(self.pairs_of(DAYS))

    @cached_property
    def pairs(self) -> Rows:
        return [row.asDict() for row in self.frames["judge_pairs"].collect()]

    @cached_property
    def examples(self) -> Rows:
        return [row.asDict() for row in self.examples_of(DAYS).collect()]

    def pairs_of(self, days: Sequence[date]) -> DataFrame:
        return judge_pairs.build(self.spark, self.frames, days, {**judge_pairs.CONFIG, **CUTS, **self.config})

    def examples_of(self, days: Sequence[date]) -> DataFrame:
        """As the job asks for them: with the pairs of these days alone."""
        pairs = self.frames["judge_pairs"].where(on_days("pair_date", days))
        frames = {**self.frames, "judge_pairs": pairs}
        return judge_examples.build(self.spark, frames, days, {**judge_examples.CONFIG, **CUTS, **self.config})

    def in_parts(self, make: Callable[[Sequence[date]], DataFrame], parts: Sequence[Sequence[date]]) -> Rows:
        """The rows of some ranges of days, one after the other."""
        return [row.asDict() for days in parts for row in make(days).collect()]

    def preferred(self) -> set[str]:
        """Pairs as `user:preferred>other`."""
        return {f"{row['user_id']}:{row['preferred_item_id']}>{row['other_item_id']}" for row in self.pairs}

    def example(self, user: str, day: int, item: str) -> dict[str, Any]:
        found = [x for x in self.examples if (x["user_id"], x["as_of"].day, x["item_id"]) == (user, day, item)]
        assert len(found) == 1, found
        return found[0]


@pytest.fixture
def built(spark: SparkSession, make_frame: Any) -> Any:
    return lambda *rows, **config: Built(spark, make_frame, *rows, **config)


CLICKS: Sequence[tuple[list[tuple[str, datetime]], set[str]]] = [
    ([("c", at(2, 10, 5))], {"c>a", "c>b"}),  # d stands below: whether it was seen, nobody knows
    ([("a", at(2, 10, 5))], set()),  # nothing stands above
    ([("c", at(2, 10, 30))], {"c>a", "c>b"}),  # the thirtieth minute counts
    ([("c", at(2, 10, 31))], set()),
    ([("c", at(2, 9, 59))], set()),  # before the list was there
    ([("e", at(2, 10, 5))], set()),  # not of the list: a request without a click
    ([("b", at(2, 10, 5)), ("d", at(2, 10, 9))], {"b>a", "d>a", "d>c"}),  # two clicks: d is not above b
    ([("c", at(2, 10, 5)), ("a", at(2, 10, 6))], {"c>b"}),  # what was clicked too was not passed over
    ([("c", at(3, 10, 5))], set()),  # on another day
]


def test_a_click_is_preferred_over_what_was_passed_over_above_it(built: Any) -> None:
    """Each case is a person of one shop, whose clicks are nothing to the others."""
    clicks = [act(f"u{n}", item, time) for n, (done, _) in enumerate(CLICKS) for item, time in done]
    shop = built(clicks, [row for n in range(len(CLICKS)) for row in shown(f"r{n}", f"u{n}", "abcd", at(2))])

    assert shop.preferred() == {f"u{n}:{pair}" for n, (_, expected) in enumerate(CLICKS) for pair in expected}
    for row in shop.pairs:
        user = row["user_id"]
        assert (row["source"], row["request_id"], row["as_of"].day) == ("exposure", f"r{user[1:]}", 2)
        assert shop.example(user, 2, row["preferred_item_id"])["kinds"] == ["shown", "taken"]
        assert shop.example(user, 2, row["other_item_id"])["kinds"] == ["shown"]


def test_a_list_before_midnight_that_is_clicked_after_it_belongs_to_the_midnight_before_it(built: Any) -> None:
    """And to the split of the click's day; the history is that before the list, though the day itself has no event."""
    events = [act("u", "e", at(2)), act("u", "b", datetime(2018, 1, 4, 0, 10, tzinfo=UTC))]
    shop = built(events, shown("r", "u", "ab", at(3, 23, 50)))

    assert [(p["pair_date"].day, p["outcome_date"].day, p["split_time"]) for p in shop.pairs] == [(3, 4, "valid")]
    members = [shop.example("u", 3, item) for item in "ab"]
    assert [row["history_item_ids"] for row in members] == [["e"], ["e"]]
    assert [(row["split_time"], row["outcome_date"].day) for row in members] == [("valid", 4)] * 2
    # The click is of the next part of the split: no hindsight of a day in train.
    assert [row["later_item_ids"] for row in members] == [[], []]


def test_of_a_request_and_of_a_day_only_so_many_pairs_are_kept(built: Any) -> None:
    lists = [row for n in range(3) for row in shown(f"r{n}", "u", "abcdefgh", at(2, 10 + n))]
    clicks = [act("u", "h", at(2, 10 + n, 5)) for n in range(3)]

    assert Counter(p["request_id"] for p in built(clicks[:1], lists[:8]).pairs) == {"r0": 3}
    assert len(built(clicks, lists, per_user_day=2).pairs) == 2


def test_five_stars_are_preferred_over_one_or_two_of_the_same_person(built: Any) -> None:
    rated = [("u", "a", 1, 5.0), ("u", "b", 1, 2.0), ("u", "c", 3, 1.0), ("u", "d", 3, 4.0), ("u", "e", 3, 3.0)]
    shop = built([act(user, item, at(day), rating) for user, item, day, rating in [*rated, ("v", "f", 1, 1.0)]])

    found = {(p["preferred_item_id"], p["other_item_id"]): p for p in shop.pairs}
    assert set(found) == {("a", "b"), ("a", "c")}
    assert {key: (p["as_of"].day, p["outcome_date"].day) for key, p in found.items()} == {
        ("a", "b"): (1, 1),
        ("a", "c"): (1, 3),
    }
    assert {(p["source"], p["request_id"], p["preferred_rating"]) for p in shop.pairs} == {("rating", None, 5.0)}
    assert [found["a", other]["other_rating"] for other in "bc"] == [2.0, 1.0]
    later = shop.example("u", 1, "c")
    assert (later["kinds"], later["rating"], later["history_item_ids"], later["outcome_date"].day) == (
        *(["taken"], 1.0, []),
        3,
    )


def test_a_pair_of_two_parts_of_the_split_is_of_the_later_one_and_so_is_the_later_item(built: Any) -> None:
    shop = built([act("u", "a", at(2), 1.0), act("u", "b", at(5), 5.0)])

    assert [(p["as_of"].day, p["split_time"]) for p in shop.pairs] == [(2, "valid")]
    assert [shop.example("u", 2, item)["split_time"] for item in "ab"] == ["train", "valid"]


def test_of_the_liked_items_the_nearest_in_time_are_held_against_a_disliked_one(built: Any) -> None:
    liked = [act("u", item, at(day), 5.0) for item, day in zip("abcde", (1, 2, 4, 5, 6), strict=True)]
    events = [*liked, act("u", "h", at(3), 1.0)]

    assert built(events, per_disliked=1).preferred() == {"u:b>h", "u:c>h"}
    assert built(events, per_disliked=2).preferred() == {"u:a>h", "u:b>h", "u:c>h", "u:d>h"}
    assert built(events, apart_days=1).preferred() == {"u:b>h", "u:c>h"}


def test_the_last_stars_of_a_day_count(built: Any) -> None:
    changed = [act("u", "a", at(1, 9), 5.0), act("u", "a", at(1, 11), 3.0), act("u", "b", at(1), 1.0)]
    assert built(changed).preferred() == set()


def test_what_was_taken_later_ends_with_the_part_of_the_split_and_leaves_the_item_out(built: Any) -> None:
    days = [("a", 1), ("b", 2), ("a", 2), ("c", 3), ("d", 4), ("e", 5), ("f", 6)]
    shop = built([act("u", item, at(day), 4.0) for item, day in days])

    assert shop.example("u", 1, "a")["later_item_ids"] == ["b", "c"]  # d is of the fourth day, which is valid
    assert shop.example("u", 2, "b")["later_item_ids"] == ["a", "c"]
    assert shop.example("u", 4, "d")["later_item_ids"] == ["e"]
    assert shop.example("u", 6, "f")["later_item_ids"] == []
    assert shop.example("u", 6, "f")["history_item_ids"] == ["a", "a", "b", "c", "d", "e"]


def test_what_was_taken_later_ends_after_so_many_days_and_items(built: Any) -> None:
    events = [act("u", item, at(day), 4.0) for day, items in ((1, "abcd"), (2, "e"), (3, "f")) for item in items]

    assert built(events, later_days=2, per_user_day=9).example("u", 1, "a")["later_item_ids"] == list("bcde")
    assert built(events, later_length=2, per_user_day=9).example("u", 1, "a")["later_item_ids"] == list("bc")


def test_a_shop_without_stars_has_its_events_as_examples_and_one_with_stars_the_rated_ones(built: Any) -> None:
    plain = [act("u", "a", at(1)), act("u", "b", at(2))]
    rated = [act("v", "c", at(2), 3.0), act("v", "d", at(2))]

    def taken(shop: Built) -> set[tuple[str, int]]:
        return {(x["item_id"], x["as_of"].day) for x in shop.examples if "taken" in x["kinds"]}

    assert taken(built(plain)) == {("a", 1), ("b", 2)}
    assert taken(built(plain + rated)) == {("a", 1), ("c", 2)}  # up to its first stars it had none
    assert built(plain).pairs == []
    assert built([]).examples == []


def test_few_items_of_a_person_and_few_people_of_a_day_are_taken_the_same_people_each_day(built: Any) -> None:
    events = [act(f"u{n}", item, at(day), 4.0) for n in range(6) for day in (2, 3) for item in "abcd"]
    shop = built(events, per_user_day=2, users_per_day=3)

    counts = Counter((x["user_id"], x["as_of"].day) for x in shop.examples if x["kinds"] == ["taken"])
    people = {user for user, _ in counts}
    assert counts == dict.fromkeys([(user, day) for user in people for day in (2, 3)], 2) and len(people) == 3


def test_a_chance_item_is_new_to_the_person_in_the_catalogue_and_drawn_by_the_root_of_its_takes(built: Any) -> None:
    """Before the day, a was taken 16 times, b 4 times, c once, z (no longer sold) 16 times: 4 to 2 to 1."""
    times = {"a": 16, "b": 4, "c": 1, "z": 16}
    before = [act(f"{item}{n}", item, at(1)) for item, count in times.items() for n in range(count)]
    people = [act(f"u{n:04d}", "h", at(2)) for n in range(700)]
    shop = built([*before, *people], tries=8)

    drawn = Counter(x["item_id"] for x in shop.examples if x["kinds"] == ["drawn"] and x["as_of"].day == 2)
    expected = {"a": 400, "b": 200, "c": 100}
    assert set(drawn) == set(expected) and sum(drawn.values()) > 690
    chi_square = sum((drawn[item] - n) ** 2 / n for item, n in expected.items())
    assert chi_square < 13.8  # two degrees of freedom, one in a thousand
    assert not [x for x in shop.examples if x["kinds"] == ["drawn"] and x["as_of"].day == 1]  # nothing was popular yet


def test_who_has_taken_all_but_one_item_is_shown_that_one_or_none(built: Any) -> None:
    others = [act("v", item, at(1)) for item in "abc"]
    shop = built([*others, act("u", "a", at(1)), act("u", "b", at(2))], tries=20)

    assert [x["item_id"] for x in shop.examples if x["user_id"] == "u" and x["kinds"] == ["drawn"]] == ["c"]


def test_an_item_that_was_drawn_and_that_a_pair_names_is_of_the_pair(built: Any) -> None:
    """b is all that can be drawn beside a on the second day, and u rates it on the fourth, which is valid."""
    shop = built([act("v", "b", at(1), 4.0), act("u", "a", at(2), 1.0), act("u", "b", at(4), 5.0)])

    row = shop.example("u", 2, "b")
    assert (row["kinds"], row["rating"], row["split_time"]) == (["taken"], 5.0, "valid")


def test_all_examples_of_a_person_and_day_have_one_context_that_of_a_pair_s_list_or_of_what_was_found(
    built: Any,
) -> None:
    events = [act("u", item, at(2, 12)) for item in "ab"] + [act("u", "c", at(3, 12)), act("u", "d", at(4))]
    searches = [search("s1", "u", "red pen", at(2, 9)), search("s2", "u", "ink", at(2, 11), "a")]
    searches += [search("s3", "u", "glue", at(3, 11), "c"), search("r", "u", "tape", at(3, 11, 59))]
    shop = built(events, shown("r", "u", "ec", at(3, 11, 59)), searches)

    assert {x["context"] for x in shop.examples if x["as_of"].day == 2} == {"ink"}
    assert {x["context"] for x in shop.examples if x["as_of"].day == 3} == {"tape"}
    assert {x["context"] for x in shop.examples if x["as_of"].day == 4} == {None}


EVENTS = st.lists(
    st.builds(
        act,
        st.sampled_from("uvw"),
        st.sampled_from("abcdefgh"),
        st.builds(at, st.integers(1, 6), st.integers(0, 23)),
        st.sampled_from([None, 1.0, 2.0, 3.0, 5.0]),
    ),
    max_size=40,
    unique_by=lambda event: (event["user_id"], event["item_id"], event["event_time"]),
)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=EVENTS, lists=st.lists(st.permutations("abcdef"), max_size=4))
def test_on_random_shops_the_rows_keep_the_contracts_the_audit_and_do_not_depend_on_ranges_or_partitioning(
    events: Rows, lists: list[list[str]], spark: SparkSession, make_frame: Any
) -> None:
    exposures = [
        row for n, items in enumerate(lists) for row in shown(f"r{n}", "uvw"[n % 3], "".join(items), at(1 + n, n))
    ]
    shop = Built(spark, make_frame, events, exposures)
    whole = {"judge_pairs": shop.frames["judge_pairs"], "judge_examples": as_table(shop.examples_of(DAYS))}

    for table, frame in whole.items():
        rules = rules_of(load_contract(table))
        broken = [F.count_if(~F.coalesce(F.expr(rule.expression), F.lit(False))).alias(rule.name) for rule in rules]
        assert not any(frame.agg(*broken).head())
    assert audit(whole["judge_examples"], shop.frames["events"]) == []
    pairs, examples = ([row.asDict() for row in frame.collect()] for frame in whole.values())
    members = {(p["user_id"], p["as_of"], p[f"{name}_item_id"]) for p in pairs for name in ("preferred", "other")}
    keys = [(row["user_id"], row["as_of"], row["item_id"]) for row in examples]
    assert members <= set(keys) and len(set(keys)) == len(keys)

    shop.frames = {name: frame.repartition(5) for name, frame in shop.frames.items()}
    spark.conf.set("spark.sql.shuffle.partitions", "3")
    try:
        parts = (DAYS[3:], DAYS[:3])
        assert in_order(shop.in_parts(shop.pairs_of, parts)) == in_order(pairs)
        assert in_order(shop.in_parts(shop.examples_of, parts)) == in_order(examples)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "2")


def in_order(rows: Rows) -> Rows:
    return sorted(rows, key=repr)


def test_hindsight_of_another_time_is_found(built: Any) -> None:
    shop = built([act("u", item, at(day), 4.0) for day, item in enumerate("abcd", 1)])
    examples, events = as_table(shop.examples_of(DAYS)), shop.frames["events"]
    of_b = (F.col("item_id") == "b") & (F.col("kinds") == F.array(F.lit("taken")))

    assert audit(examples, events) == []
    for planted in "adh":  # taken before the day, in the next part of the split, never
        told = F.when(of_b, F.array(F.lit(planted))).otherwise(F.col("later_item_ids"))
        found = audit(examples.withColumn("later_item_ids", told), events)
        assert [(leak.rule, leak.count) for leak in found] == [("later_item_not_in_its_time", 1)]


def test_a_shop_that_has_never_landed_a_list_or_a_search_is_built_and_later_days_redo_what_is_due(
    profile: Profile, publish_events: Any, make_frame: Any, spark: SparkSession
) -> None:
    """Built again after 3 days here, in place of 30, so that there are few days to build."""
    days = [datetime(2018, 1, 1, 10, tzinfo=UTC) + timedelta(days=n) for n in range(6)]
    publish_events([act("u", "abcdefgh"[n], day, (1.0, 5.0)[n % 2]) for n, day in enumerate(days[:4])])
    with_items(profile, make_frame)
    assert judge_pairs.JOB.again == judge_examples.JOB.again == (30, 90, 365)
    jobs = (histories.JOB, *(replace(job, again=(3, 9)) for job in (judge_pairs.JOB, judge_examples.JOB)))
    last = days[3].date()
    for job in jobs:
        assert run(job, FIRST, last, profile).exit_code == 0
    assert all(run(job, FIRST, last, profile).published == () for job in jobs)

    publish_events([act("u", "a", day, 1.0) for day in days[4:]])
    run(USER_STATS, last, days[5].date(), profile)
    redone = {job.table: [w.partition for w in run(job, *[days[4].date()] * 2, profile).published] for job in jobs}
    # 4 days after the first, the second day is 3 days old.
    of_both = [days[1].date(), days[4].date()]
    assert redone == {"histories": of_both[1:], "judge_pairs": of_both, "judge_examples": of_both}
    needed = replace(judge_pairs.JOB, inputs=tuple(replace(i, optional=False) for i in judge_pairs.JOB.inputs))
    with pytest.raises(Exception, match="nothing was ever published"):
        run(needed, FIRST, last, profile)


def with_items(profile: Profile, make_frame: Any) -> None:
    """Publish the catalogue of these tests."""
    from infra.ledger import Ledger
    from spark_jobs.engine.commit import Batch, commit

    contract = load_contract("items")
    batch = Batch(contract, make_frame("items", ITEMS), {FIRST: "key"}, {FIRST: ()}, "test", 0, 0.0)
    assert not commit(batch, Lake(profile), Ledger(profile)).stopped


def test_the_real_ratings_of_office_make_pairs_by_the_thousand(
    spark: SparkSession, make_frame: Any, record_property: Any
) -> None:
    """All are among those that plain Python finds: of one person, 5 over 1 or 2 stars, a year apart at most."""
    rows = pa.concat_tables([pq.read_table(file) for file in sorted(OFFICE.glob("*.parquet"))])
    events = rows.select(["user_id", "item_id", "event_time", "event_type", "rating"]).to_pylist()
    days = sorted({event["event_time"].date() for event in events})
    frames = {"events": make_frame("events", events), "exposures": make_frame("exposures", [])}
    config = judge_pairs.JOB.resolved_config(load_profile("local", environ={}))
    pairs = judge_pairs.build(spark, frames, days, config).collect()

    plain = plainly_paired(events)
    assert {(p["user_id"], p["preferred_item_id"], p["other_item_id"]) for p in pairs} <= plain
    parts = Counter(p["split_time"] for p in pairs)
    for name, count in {"pairs": len(pairs), "of all": len(plain), **parts}.items():
        record_property(name, count)
    assert len(plain) > len(pairs) > 2000 and min(parts[part] for part in ("train", "valid", "test")) > 200


def plainly_paired(events: Rows) -> set[tuple[str, str, str]]:
    paired = set()
    for user, own in groupby(sorted(events, key=lambda e: e["user_id"]), key=lambda e: e["user_id"]):
        rated = list(own)
        for one in rated:
            for two in rated:
                apart = abs((one["event_time"].date() - two["event_time"].date()).days)
                if one["rating"] == 5 and two["rating"] <= 2 and apart <= 365 and one["item_id"] != two["item_id"]:
                    paired.add((user, one["item_id"], two["item_id"]))
    return paired
