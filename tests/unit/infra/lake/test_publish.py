"""Publish: whole partitions change at once, the same run twice is one run, and any old version can be had again."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import PlumblineError, TransientError
from infra.lake import current_keys, publish, rollback, verify
from infra.ledger import Ledger, StaleAttempt
from infra.partitions import Attempt, PartitionWrite
from tests.lake_kit import Day, Shop, day, key_of


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "a home")


def test_a_first_publish_of_several_days_is_one_version(shop: Shop) -> None:
    done = shop.publish({day(0): Day((1, 2)), day(1): Day((3,), bad=(9,))})
    assert done.changed == done.recorded == (day(0), day(1))
    assert shop.rows() == {day(0): (1, 2), day(1): (3,)}
    assert shop.refused() == {day(1): 1}
    assert [v.snapshot_id for v in shop.lake.history("sales")] == [done.snapshot_id]
    assert shop.told()[day(1)] == (key_of(day(1), Day((3,), bad=(9,))), 2, 1, 1)
    assert shop.ledger.committed("sales")[day(1)].snapshot_id == done.snapshot_id


def test_the_files_are_live_where_they_were_staged(shop: Shop) -> None:
    attempt = shop.open({day(0): Day((1,))})
    (write,) = shop.stage({day(0): Day((1,))}, attempt)
    assert shop.lake.files("sales") == []
    publish(shop.lake, shop.ledger, "sales", [write], attempt)
    (file,) = shop.lake.files("sales")
    assert (file.path, file.partition, file.rows, file.run_key) == (write.files[0], day(0), 1, write.run_key)


def test_the_same_run_again_changes_nothing(shop: Shop) -> None:
    first = shop.publish({day(0): Day((1,)), day(1): Day()})
    again = shop.publish({day(0): Day((1,)), day(1): Day()})
    assert again.unchanged == (day(0), day(1))
    assert again.changed == again.recorded == ()
    assert again.snapshot_id == first.snapshot_id
    assert len(shop.ledger.history()) == 2


def test_a_new_run_replaces_its_day_and_no_other(shop: Shop) -> None:
    shop.publish({day(n): Day((n,)) for n in range(3)})
    done = shop.publish({day(1): Day((10, 11)), day(2): Day((2,))})
    assert (done.changed, done.unchanged) == ((day(1),), (day(2),))
    assert shop.rows() == {day(0): (0,), day(1): (10, 11), day(2): (2,)}


def test_an_empty_run_takes_the_rows_out_and_is_committed(shop: Shop) -> None:
    shop.publish({day(0): Day((1,), bad=(2,)), day(1): Day((3,))})
    done = shop.publish({day(0): Day()})
    assert done.changed == (day(0),)
    assert (shop.rows(), shop.refused()) == ({day(1): (3,)}, {})
    assert shop.ledger.missing("sales", day(0), day(1)) == []
    assert current_keys(shop.lake, shop.ledger, "sales") == {
        day(0): key_of(day(0), Day()),
        day(1): key_of(day(1), Day((3,))),
    }


def test_the_first_publish_of_a_table_may_be_empty(shop: Shop) -> None:
    done = shop.publish({day(0): Day()})
    assert (done.snapshot_id, done.changed, done.recorded) == (None, (), (day(0),))
    assert shop.lake.snapshot("sales") is None
    assert verify(shop.lake, shop.ledger) == []


def test_a_reader_at_an_old_snapshot_gets_the_old_rows(shop: Shop) -> None:
    old = shop.publish({day(0): Day((1, 2)), day(1): Day((3,))}).snapshot_id
    shop.publish({day(0): Day((7,)), day(1): Day()})
    assert shop.rows(old) == {day(0): (1, 2), day(1): (3,)}
    loaded = shop.lake.load("sales")
    assert loaded is not None
    assert sorted(loaded.scan(snapshot_id=old).to_arrow()["amount"].to_pylist()) == [1, 2, 3]
    assert loaded.scan().to_arrow()["amount"].to_pylist() == [7]


def test_a_lost_ledger_row_is_added_by_the_retry_without_a_second_publish(shop: Shop) -> None:
    days = {day(0): Day((1,), bad=(2,))}
    with pytest.raises(TransientError, match="cut short"):
        _publish_and_fail_to_record(shop, days)
    assert shop.told() == {}
    assert [fault.what for fault in verify(shop.lake, shop.ledger)] != []
    version = shop.lake.snapshot("sales")
    done = shop.publish(days)
    assert (done.changed, done.recorded, done.snapshot_id) == ((), (day(0),), version)
    assert verify(shop.lake, shop.ledger) == []


def test_a_stale_attempt_changes_nothing(shop: Shop) -> None:
    shop.publish({day(0): Day((1,))})
    before = shop.state()
    stale = shop.open({day(0): Day((2,)), day(1): Day((3,), bad=(4,))})
    writes = shop.stage({day(0): Day((2,)), day(1): Day((3,), bad=(4,))}, stale)
    shop.open({day(1): Day()})
    with pytest.raises(StaleAttempt):
        publish(shop.lake, shop.ledger, "sales", writes, stale)
    assert shop.state() == before


def test_an_attempt_that_is_overtaken_while_it_commits_loses(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newer attempt publishes between the load and the commit of the older one."""
    slow = {day(0): Day((1,))}
    attempt = shop.open(slow)
    writes = shop.stage(slow, attempt)
    check = Ledger.check

    def overtaken_after_the_check(self: Ledger, which: Attempt, *days: date) -> None:
        check(self, which, *days)
        if which.token == attempt.token:
            monkeypatch.setattr(Ledger, "check", check)
            shop.publish({day(0): Day((2,))})

    shop.publish({day(5): Day((5,))})
    monkeypatch.setattr(Ledger, "check", overtaken_after_the_check)
    with pytest.raises(StaleAttempt):
        publish(shop.lake, shop.ledger, "sales", writes, attempt)
    assert shop.rows() == {day(0): (2,), day(5): (5,)}


def test_two_attempts_of_one_run_write_different_files(shop: Shop) -> None:
    days = {day(0): Day((1,))}
    first, second = shop.open(days), shop.open(days)
    assert shop.stage(days, first)[0].files != shop.stage(days, second)[0].files


def test_a_rolled_back_run_publishes_again(shop: Shop) -> None:
    shop.publish({day(0): Day((1,), bad=(8,))})
    old = shop.lake.snapshot("sales")
    assert old is not None
    shop.publish({day(0): Day((2,), bad=(8, 9)), day(1): Day((3,))})
    done = rollback(shop.lake, shop.ledger, "sales", old)
    assert (done.restored, done.withdrawn) == ((day(0),), (day(1),))
    assert (shop.rows(), shop.refused()) == ({day(0): (1,)}, {day(0): 1})
    assert shop.ledger.missing("sales", day(0), day(1)) == [day(1)]
    assert verify(shop.lake, shop.ledger) == []
    assert shop.publish({day(0): Day((2,), bad=(8, 9))}).changed == (day(0),)
    assert (shop.rows(), shop.refused()) == ({day(0): (2,)}, {day(0): 2})


def test_a_rollback_makes_attempts_under_way_stale(shop: Shop) -> None:
    shop.publish({day(0): Day((1,))})
    old = shop.lake.snapshot("sales")
    assert old is not None
    shop.publish({day(0): Day((2,))})
    under_way = shop.open({day(0): Day((3,))})
    writes = shop.stage({day(0): Day((3,))}, under_way)
    rollback(shop.lake, shop.ledger, "sales", old)
    with pytest.raises(StaleAttempt):
        publish(shop.lake, shop.ledger, "sales", writes, under_way)
    assert shop.rows() == {day(0): (1,)}


def test_the_first_half_of_a_replacing_publish_is_no_version(shop: Shop) -> None:
    shop.publish({day(0): Day((1,))})
    shop.publish({day(0): Day((2,))})
    loaded = shop.lake.load("sales")
    assert loaded is not None
    halves = {s.snapshot_id for s in loaded.snapshots()} - {v.snapshot_id for v in shop.lake.history("sales")}
    assert len(halves) == 1
    with pytest.raises(PlumblineError, match="no version"):
        shop.lake.files("sales", snapshot=halves.pop())


def test_files_can_be_asked_for_by_range_and_by_day(shop: Shop) -> None:
    shop.publish({day(n): Day((n,)) for n in range(5)})

    def days(**bounds: object) -> list[int]:
        return [(file.partition - day(0)).days for file in shop.lake.files("sales", **bounds)]  # type: ignore[arg-type]

    assert days() == [0, 1, 2, 3, 4]
    assert days(first=day(1), last=day(3)) == [1, 2, 3]
    assert days(last=day(0)) == [0]
    assert days(partitions=[day(4), day(9), day(1)]) == [1, 4]
    assert days(partitions=[]) == []


def test_an_attempt_publishes_only_what_it_was_opened_for(shop: Shop) -> None:
    days = {day(0): Day((1,))}
    attempt = shop.open({day(1): Day()})
    with pytest.raises(PlumblineError, match="may not publish"):
        publish(shop.lake, shop.ledger, "sales", shop.stage(days, attempt), attempt)
    twice = shop.open(days)
    with pytest.raises(PlumblineError, match="may not publish"):
        publish(shop.lake, shop.ledger, "sales", shop.stage(days, twice) * 2, twice)


def test_a_file_from_elsewhere_and_a_wrong_count_are_refused(shop: Shop, tmp_path: Path) -> None:
    days = {day(0): Day((1,))}
    attempt = shop.open(days)
    (write,) = shop.stage(days, attempt)
    stray = tmp_path / "stray.parquet"
    pq.write_table(pq.read_table(write.files[0], partitioning=None), stray)
    for wrong, said in (
        (replace(write, files=(str(stray),)), "not where"),
        (replace(write, rows_out=2), "counted wrongly"),
        (replace(write, files=()), "counted wrongly"),
    ):
        with pytest.raises(PlumblineError, match=said):
            publish(shop.lake, shop.ledger, "sales", [wrong], attempt)
    assert shop.lake.load("sales") is None


_contents = st.builds(
    Day,
    good=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    bad=st.lists(st.integers(0, 9), max_size=2).map(tuple),
)
_runs = st.dictionaries(st.integers(0, 3).map(day), _contents, min_size=1, max_size=3)
_steps = st.one_of(
    st.tuples(st.just("publish"), _runs),
    st.tuples(st.just("killed before the ledger, then retried"), _runs),
    st.tuples(st.just("repeat the last"), st.just({})),
    st.tuples(st.just("rollback"), st.integers(0, 5)),
)


@settings(max_examples=12, deadline=None)
@given(st.lists(_steps, min_size=1, max_size=7))
def test_any_sequence_of_runs_retries_and_rollbacks_ends_like_a_dictionary(steps: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as home:
        shop = Shop(Path(home))
        model: dict[date, Day] = {}
        versions: list[tuple[int, dict[date, Day]]] = []
        last: dict[date, Day] = {}
        for what, argument in steps:
            if what == "rollback":
                if not versions:
                    continue
                assert isinstance(argument, int)
                snapshot, then = versions[argument % len(versions)]
                rollback(shop.lake, shop.ledger, "sales", snapshot)
                model = {when: content for when, content in then.items() if content.good}
            else:
                last = dict(argument) if argument else last  # type: ignore[call-overload]
                if what.startswith("killed"):
                    _publish_and_be_killed(shop, last)
                shop.publish(last)
                model |= last
                current = shop.lake.snapshot("sales")
                if current is not None and current not in dict(versions):
                    versions.append((current, dict(model)))
            _check_against(shop, model)
        for snapshot, then in versions:
            assert shop.rows(snapshot) == _rows(then)


def _check_against(shop: Shop, model: dict[date, Day]) -> None:
    assert shop.rows() == _rows(model)
    told = shop.told()
    for when, content in model.items():
        assert told[when] == (
            key_of(when, content),
            len(content.good) + len(content.bad),
            len(content.good),
            len(content.bad),
        )
        assert shop.refused().get(when, 0) == len(content.bad)
    assert shop.ledger.reconcile() == []


def _rows(model: dict[date, Day]) -> dict[date, tuple[int, ...]]:
    return {when: tuple(sorted(content.good)) for when, content in model.items() if content.good}


def _publish_and_be_killed(shop: Shop, days: dict[date, Day]) -> None:
    try:
        _publish_and_fail_to_record(shop, days)
    except TransientError:
        return


def _publish_and_fail_to_record(shop: Shop, days: dict[date, Day]) -> None:
    class Unplugged(Ledger):
        def record(self, attempt: Attempt, writes: object, snapshot_id: int | None) -> None:
            raise OSError("the database is gone")

    attempt = shop.open(days)
    writes: list[PartitionWrite] = shop.stage(days, attempt)
    publish(shop.lake, Unplugged(shop.profile), "sales", writes, attempt)
