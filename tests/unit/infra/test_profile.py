from __future__ import annotations

from pathlib import Path

import pytest

from infra.profile import ProfileError, load_profile


def test_a_value_is_overridden_by_its_environment_variable() -> None:
    profile = load_profile("local", environ={"PLUMBLINE__LAKE__KEEP_DAYS": "7"})
    assert profile.lake.keep_days == 7


def test_moving_home_moves_all_state_also_to_a_path_with_spaces() -> None:
    profile = load_profile("local", environ={"PLUMBLINE__HOME": "/tmp/a b"})
    assert profile.home == Path("/tmp/a b")
    assert profile.lake.warehouse == "/tmp/a b/lake/warehouse"
    assert profile.airflow.home == Path("/tmp/a b/airflow")


def test_spark_settings_may_be_added_by_environment() -> None:
    profile = load_profile("local", environ={"PLUMBLINE__SPARK__MASTER": "local[1]"})
    assert profile.spark.master == "local[1]"


@pytest.mark.parametrize("variable", ["PLUMBLINE__LAKE__KEEP", "PLUMBLINE__LAK__KEEP_DAYS", "PLUMBLINE__COLOUR"])
def test_an_unknown_key_is_named(variable: str) -> None:
    with pytest.raises(ProfileError, match=variable):
        load_profile("local", environ={variable: "1"})


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PLUMBLINE__LAKE__KEEP_DAYS", "soon", "'soon'; allowed is a whole number."),
        ("PLUMBLINE__LAKE__KEEP_DAYS", "-1", "-1; allowed is 0 or more."),
        ("PLUMBLINE__PORTS__AIRFLOW", "70000", "70000; allowed is 65535 or less."),
        ("PLUMBLINE__TRAINING_PRESET", "huge", "'huge'; allowed is 'demo', 'bench' or 'production'."),
        ("PLUMBLINE__AIRFLOW__WARM_STARTS", "perhaps", "'perhaps'; allowed is true or false."),
        ("PLUMBLINE__SAMPLES__TEST_FROM", "8.1.2018", "'8.1.2018'; allowed is a day such as 2018-01-05."),
        ("PLUMBLINE__SYSTEMS", "generative_rec", "'generative_rec'; allowed is a list such as [a, b]."),
        ("PLUMBLINE__LAKE", "7", "7; allowed is keys with their values."),
        (
            "PLUMBLINE__SAMPLES",
            "{valid_from: 2018-01-06, test_from: 2018-01-05}",
            "allowed is a valid_from that is not after ",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_variable_and_what_is_allowed(
    variable: str, value: str, said: str
) -> None:
    with pytest.raises(ProfileError) as failure:
        load_profile("local", environ={variable: value})
    key = variable.removeprefix("PLUMBLINE__").lower().replace("__", ".")
    assert failure.value.why.startswith(f"{key} ({variable}) is ")
    assert said in failure.value.why


def test_each_value_that_does_not_fit_is_told_and_no_password() -> None:
    api = "{url: 7, password: 1234567}"
    with pytest.raises(ProfileError) as failure:
        load_profile("local", environ={"PLUMBLINE__AIRFLOW__API": api, "PLUMBLINE__STAGES__KEEP": "few"})
    told = failure.value.why.splitlines()
    assert len(told) == 4  # url, user, password, keep
    assert "1234567" not in str(failure.value)


def test_a_missing_cluster_value_is_named_with_its_variable() -> None:
    with pytest.raises(ProfileError, match="PLUMBLINE_LANDING"):
        load_profile("cluster", environ={})


def test_the_cluster_profile_is_complete_once_its_variables_are_set() -> None:
    names = [
        "PLUMBLINE_LANDING",
        "PLUMBLINE_CODE_COMMIT",
        "PLUMBLINE_DATABASE_URI",
        "PLUMBLINE_CATALOG_URI",
        "PLUMBLINE_WAREHOUSE",
        "PLUMBLINE_SPARK_MASTER",
        "PLUMBLINE_REDIS",
        "MLFLOW_TRACKING_URI",
        "PLUMBLINE_MLFLOW_ARTIFACTS",
        "PLUMBLINE_TRAINING_IMAGE",
        "PLUMBLINE_AIRFLOW_URL",
        "PLUMBLINE_AIRFLOW_USER",
        "PLUMBLINE_AIRFLOW_PASSWORD",
        "PLUMBLINE_ALERT_WEBHOOK",
    ]
    profile = load_profile("cluster", environ={name: f"value-of-{name}" for name in names})
    assert profile.launcher.kind == "kubernetes"
    assert profile.database_uri == "value-of-PLUMBLINE_DATABASE_URI"
    assert profile.airflow.api is not None and profile.airflow.api.url == "value-of-PLUMBLINE_AIRFLOW_URL"
    assert "PLUMBLINE_AIRFLOW_PASSWORD" not in repr(profile)


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(ProfileError, match="cluster, local"):
        load_profile("moon", environ={})


def test_a_value_that_is_no_yaml_is_named() -> None:
    with pytest.raises(ProfileError, match="PLUMBLINE__LAKE__KEEP_DAYS"):
        load_profile("local", environ={"PLUMBLINE__LAKE__KEEP_DAYS": "["})


@pytest.mark.parametrize("key", ["home", "landing"])
@pytest.mark.parametrize(("given", "found"), [("a b/c", "a b/c"), ("x/../y", "y"), ("./z", "z"), ("~/w", "w")])
def test_a_folder_is_absolute_so_that_every_process_finds_the_same(
    key: str, given: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    profile = load_profile("local", environ={f"PLUMBLINE__{key.upper()}": given})
    assert getattr(profile, key) == tmp_path / found
    assert profile.lake.warehouse == f"{profile.home}/lake/warehouse"


@pytest.mark.parametrize("key", ["home", "landing"])
@pytest.mark.parametrize("given", ["", " "])
def test_a_folder_that_is_none_is_refused(key: str, given: str) -> None:
    with pytest.raises(ProfileError, match=f"'{key}' names no folder"):
        load_profile("local", environ={f"PLUMBLINE__{key.upper()}": given})
