"""`python -m spark_jobs market simulate`, `replay`, `estimate` on a small catalogue: what they print and refuse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from infra.contracts import arrow_schema, load_contract
from infra.errors import DataError
from infra.profile import CHECKOUT, load_profile
from spark_jobs.market import __main__ as commands
from spark_jobs.market.__main__ import SCALES, main
from spark_jobs.market.kinds import everybody_reads
from spark_jobs.market.off_policy_check import RIVALS
from spark_jobs.market.parameters import Parameters
from spark_jobs.market.replay import METRICS
from tests.lake_kit import put
from tests.unit.spark_jobs.market.kit import items, utterances

USERS = [f"u{n}" for n in range(30)]
NUMBER = r"[+-]?\d+\.\d{4}"
CHANGE = rf"{NUMBER} \[({NUMBER}), ({NUMBER})\]"


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue in a file, the lists of two policies for the same people, and a lake that holds nothing."""
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    items().to_parquet("items.parquet")
    lists([1, 2, 3]).to_parquet("old.parquet")
    lists([50, 60, 70]).to_parquet("new.parquet")


def lists(places: Sequence[int], users: Sequence[str] = USERS, **columns: object) -> pd.DataFrame:
    rows = [(user, f"i{item:03d}", rank + 1) for user in users for rank, item in enumerate(places)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"]).assign(**columns)


def replayed(*more: str, policy: str = "new.parquet", against: str = "old.parquet") -> list[str]:
    catalogue = ["--items", "items.parquet", "--days", "2"]
    return ["replay", "--policy", policy, "--against", against, *catalogue, *more]


def told(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> list[str]:
    assert main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def test_a_replay_names_both_policies_says_simulated_and_gives_each_difference_its_interval(
    spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    head, names, *lines = told(capsys, replayed("--people", "20", "--seed", "3"))
    assert head.startswith("new against old: 20 people, 2 days, 120 items (simulated; ")
    assert f"parameters {Parameters.read().hash}, seed 3)" in head
    assert names.split()[:6] == ["by", "person", "new", "old", "random", "oracle"]
    assert [line.split()[0] for line in lines] == list(METRICS)
    for line in lines:
        found = re.search(CHANGE, line)
        assert found is not None and float(found[1]) <= float(found[2])
    # Nobody buys more than they click, and the oracle is above chance.
    clicks, purchases = (lines[list(METRICS).index(name)].split() for name in ("clicks", "purchases"))
    assert float(clicks[1]) >= float(purchases[1]) and float(clicks[4]) > float(clicks[3])


def test_the_same_lists_have_two_names_and_no_difference(
    spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    head, _, *lines = told(capsys, replayed(policy="old.parquet"))
    assert head.startswith("old (1) against old (2): 30 people")
    assert all("+0.0000 [+0.0000, +0.0000]" in line for line in lines)


def test_a_setting_is_another_market(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    plain, grocer = (told(capsys, replayed(*more)) for more in ((), ("--setting", "grocer")))
    assert Parameters.read(setting="grocer").hash in grocer[0] and plain[2:] != grocer[2:]


def asked(*names: str, users: Sequence[str] = USERS) -> pd.DataFrame:
    rows = [(user, name, rank + 1) for user in users for rank, name in enumerate(names)]
    return pd.DataFrame(rows, columns=["user_id", "intent", "rank"])


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A help desk, and what it may show."""
    monkeypatch.setattr(commands, "intents", lambda lake: utterances().assign(kind="utterance"))
    asked("track_order", "delivery_period", "payment_issue").to_parquet("old.parquet")
    asked("newsletter_subscription", "create_account").to_parquet("new.parquet")


def test_intents_are_replayed_at_the_opening_of_chats(
    spark: SparkSession, desk: None, capsys: pytest.CaptureFixture[str]
) -> None:
    head, _, *lines = told(capsys, replayed("--days", "20"))
    assert head.startswith("new against old, intents: 30 people, 20 days, 120 items (simulated; ")
    assert [line.split()[0] for line in lines] == list(METRICS)
    levels = {line.split()[0]: [float(figure) for figure in line.split()[1:5]] for line in lines}
    for metric in ("clicks", "satisfaction"):
        new, old, chance, oracle = levels[metric]
        assert new < old < oracle > chance


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (asked("track_order", "weather"), "intents that the help desk does not have"),
        (asked("track_order", users=USERS[1:]), "do not serve the same users"),
        (asked("track_order", "track_order"), "more than one list"),
        (asked("track_order").assign(item_id="i001"), "lacks columns, or has too many"),
        (asked("track_order").assign(order_state="paid", logistics_state=""), "no list for some states"),
        (lists([1, 2]), "cannot be compared"),
        (asked(), "cannot be played"),
    ],
)
def test_a_table_that_is_no_policy_of_the_desk_is_refused(desk: None, table: pd.DataFrame, message: str) -> None:
    table.to_parquet("bad.parquet")
    with pytest.raises(DataError, match=message) as refused:
        main(replayed(policy="bad.parquet"))
    assert refused.value.do


def test_where_nobody_opens_a_chat_no_intents_can_be_played(spark: SparkSession, desk: None) -> None:
    asked("track_order", users=["u1"]).to_parquet("new.parquet")
    asked("get_refund", users=["u1"]).to_parquet("old.parquet")
    with pytest.raises(DataError, match="Nobody met what was to be played"):
        main(replayed("--days", "1"))


def test_without_a_help_desk_no_intents_can_be_played() -> None:
    for name in ("old", "new"):
        asked("track_order").to_parquet(f"{name}.parquet")
    with pytest.raises(DataError, match="Nobody opens a chat in this market") as refused:
        main(replayed())
    assert refused.value.do


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lists([1, 500]), "items that the shop does not have"),
        (lists([1, 2], USERS[1:]), "do not serve the same users"),
        (lists([1, 1]), "more than one list"),
        (lists([1, 2], chance=0.4), "are no chances"),
        (lists([1, 2], model_version="oracle"), "a name that is taken"),
        (lists([1, 2]).drop(columns="rank"), "lacks columns"),
        (lists([]), "cannot be played"),
    ],
)
def test_a_table_that_is_no_policy_of_the_shop_is_refused_before_a_night_is_played(
    table: pd.DataFrame, message: str
) -> None:
    table.to_parquet("bad.parquet")
    with pytest.raises(DataError, match=message) as refused:
        main(replayed(policy="bad.parquet"))
    assert str(refused.value.where).startswith("bad") and refused.value.do


COMMANDS = (["replay", "--policy", "new.parquet", "--against", "old.parquet"], ["estimate"])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "no catalogue"),
        (["--items", "nothing.parquet"], "catalogue cannot be read"),
        (["--items", "new.parquet"], "catalogue lacks columns"),
        (["--items", "items.parquet", "--setting", "bazaar"], "no setting 'bazaar'"),
    ],
)
def test_without_a_catalogue_or_a_setting_that_can_be_used_nothing_is_done(
    command: list[str], more: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as refused:
        main([*command, *more])
    assert refused.value.do or refused.value.why


def help_desk() -> pd.DataFrame:
    """The bundled intents, as the lake has them: Bitext's real wordings and the guidelines of ABCD's knowledge base."""
    folder = CHECKOUT / "spark_jobs" / "sample_data" / "landing" / "intents"
    bitext, abcd = pd.read_parquet(folder / "bitext.parquet"), pd.read_json(folder / "abcd.jsonl", lines=True)
    # A newer delivery replaces an older one.
    old = bitext.assign(text="from an old delivery", text_id="old-" + bitext["text_id"], valid_date=date(2020, 1, 1))
    return pd.concat([old, *(one.assign(valid_date=date(2021, 1, 1)) for one in (bitext, abcd))])


def simulated(*more: str) -> list[str]:
    return ["simulate", "--items", "items.parquet", "--folder", "log", "--days", "10", *more]


def test_a_log_has_chats_in_the_real_wordings_of_the_lakes_intents(
    spark: SparkSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCALES, "demo", 6_000)
    rows, schema = help_desk(), arrow_schema(load_contract("intents"))
    lines = rows.astype(object).where(rows.notna(), None).to_dict("records")
    put(load_profile(), "intents", pa.Table.from_pylist(lines, schema))
    head, *_, desk = told(capsys, simulated())
    chats, truth = (pd.read_parquet(Path("log") / table) for table in ("chats", "true_chats"))
    real = rows[(rows["kind"] == "utterance") & (rows["valid_date"] == date(2021, 1, 1))]
    named = {name for cause in Parameters.read().chats.causes.values() for name in cause.intents}
    worded = real[real["intent"].isin(named)]
    assert f"{len(chats):,} chats" in head and len(chats) > 30
    assert desk == f"chats in the words of {worded['text'].drop_duplicates().size:,} texts of `intents`"
    assert set(chats["message"]) <= set(worded["text"]) and chats["message"].nunique() > 20
    meant = truth.set_index("chat_id")["meant_intent"]
    pairs = set(zip(chats["message"], meant[chats["chat_id"]], strict=True))
    assert pairs <= set(zip(worded["text"], worded["intent"], strict=True))
    assert meant.nunique() > 5


def test_without_intents_in_the_lake_a_log_has_no_chats_and_says_so(
    spark: SparkSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCALES, "demo", 2_000)
    *_, desk = told(capsys, simulated())
    assert desk.startswith("no chats: no text of `intents`") and not (Path("log") / "chats").exists()
    with pytest.raises(DataError, match="a folder of its own"):
        main(simulated("--seed", "8"))


def test_a_catalogue_of_one_item_leaves_nothing_to_choose() -> None:
    items(1).to_parquet("one.parquet")
    lists([0]).to_parquet("a.parquet")
    lists([0]).to_parquet("b.parquet")
    replay = ["replay", "--policy", "a.parquet", "--against", "b.parquet"]
    for command in (replay, ["estimate"]):
        with pytest.raises(DataError, match="nothing to choose between"):
            main([*command, "--items", "one.parquet"])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--days", "--people"])
def test_no_days_and_no_people_are_no_numbers(
    command: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*command, option, "0"])
    assert "'0' is no number; write one from 1 on" in capsys.readouterr().err


def test_estimates_stand_beside_the_truth_for_each_rival_and_say_that_all_is_simulated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["estimate", "--items", "items.parquet", "--people", "40", "--days", "10", "--seed", "5"]
    head, rule, *lines = told(capsys, asked)
    rivals, (gap, tail) = lines[: len(RIVALS)], lines[len(RIVALS) :]
    assert head.startswith("| rival | log's own | truth | ") and "effective lists" in head and gap == ""
    assert [line.split(" | ")[0].removeprefix("| ") for line in rivals] == list(RIVALS)
    assert {line.count("|") for line in (head, rule, *rivals)} == {head.count("|")}
    estimates = [cell for line in rivals for cell in line.split(" | ")[3:-1]]
    assert all(re.match(r"\d+\.\d{4} \([+-]\d+\.\d%\)", cell) for cell in estimates)
    assert tail.startswith("Clicks by list; 40 people, 10 days, 120 items (simulated; ")
    assert f"parameters {everybody_reads(Parameters.read()).hash}, seed 5)" in tail
    again = told(capsys, asked)
    assert again[:-1] == [head, rule, *rivals, gap]
