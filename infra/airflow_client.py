"""A small client of the Airflow API server: trigger, watch, read logs, answer an approval, tell of an asset.

Answers are the API's own JSON objects (Airflow REST API v2); a refused or failed call is an AirflowApiError.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

from infra.airflow_env import USER, Pool, base_url, password
from infra.errors import TransientError
from infra.profile import Profile

Json = dict[str, Any]
_PAGE = 100
_SECONDS = 30
_TRIES = 5


class AirflowApiError(TransientError):
    """The API server refused a call, or did not answer; `status` is the HTTP status, 0 without an answer."""

    def __init__(self, what: str, *, where: str, why: str = "", status: int = 0) -> None:
        self.status = status
        super().__init__(what, where=where, why=why, do="Is the API server up? Its log is in <home>/airflow/logs.")


class AirflowClient:
    """One login to one API server; the token is fetched on the first call."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url, self._user, self._password = url, user, password
        self._token: str | None = None

    @classmethod
    def of(cls, profile: Profile) -> AirflowClient:
        """The client of the profile's API server: the one it names, else our own with its generated password.

        Raises:
            AirflowApiError: our own was never started.
        """
        api = profile.airflow.api
        if api is not None:
            return cls(api.url.rstrip("/"), api.user, api.password.get_secret_value())
        try:
            return cls(base_url(profile), USER, password(profile))
        except FileNotFoundError as error:
            raise AirflowApiError("Airflow was never started here.", where=str(profile.airflow.home)) from error

    def health(self) -> Json:
        """State of the metadatabase, scheduler, DAG processor and triggerer; needs no login."""
        return self._send("GET", "/api/v2/monitor/health", None, {})

    def dags(self) -> list[Json]:
        """All DAGs that were parsed."""
        return list(self._pages("/api/v2/dags", "dags"))

    def import_errors(self) -> list[Json]:
        """DAG files that could not be parsed."""
        return list(self._pages("/api/v2/importErrors", "import_errors"))

    def unpause(self, dag_id: str) -> Json:
        """Let the scheduler run this DAG."""
        return self._call("PATCH", f"/api/v2/dags/{_quote(dag_id)}", {"is_paused": False})

    def trigger(self, dag_id: str, partition_key: date | None = None, conf: Mapping[str, Any] | None = None) -> Json:
        """Start a run for a partition (the last day of its range; the first day is `conf["from"]`)."""
        body: Json = {"logical_date": None, "conf": dict(conf or {})}
        if partition_key is not None:
            body["partition_key"] = partition_key.isoformat()
        return self._call("POST", f"/api/v2/dags/{_quote(dag_id)}/dagRuns", body)

    def makers(self) -> dict[str, set[str]]:
        """The tasks of each DAG whose success sets off others: those that make an asset."""
        found: dict[str, set[str]] = {}
        for asset in self._pages("/api/v2/assets", "assets"):
            for task in asset["producing_tasks"]:
                found.setdefault(task["dag_id"], set()).add(task["task_id"])
        return found

    def announce(self, asset: str, partition_key: date) -> Json:
        """Make an event of `asset`, for what no task has done; it sets off the DAGs that follow the asset."""
        known = {one["name"]: one["id"] for one in self._pages("/api/v2/assets", "assets", {"name_pattern": asset})}
        if asset not in known:
            raise AirflowApiError(f"Airflow knows no asset {asset!r}.", where=self._url)
        body = {"asset_id": known[asset], "partition_key": partition_key.isoformat()}
        return self._call("POST", "/api/v2/assets/events", body)

    def runs(self, dag_id: str = "~", since: datetime | None = None) -> list[Json]:
        """Runs of one DAG, or of all (`~`), queued at or after `since`, oldest first."""
        query = {"order_by": "run_after"}
        if since is not None:
            query["run_after_gte"] = since.astimezone(UTC).isoformat()
        return list(self._pages(f"/api/v2/dags/{_quote(dag_id)}/dagRuns", "dag_runs", query))

    def task_instances(self, dag_id: str = "~", run_id: str = "~") -> list[Json]:
        """Newest try of each task of a run, or of all runs (`~`)."""
        path = f"/api/v2/dags/{_quote(dag_id)}/dagRuns/{_quote(run_id)}/taskInstances"
        return list(self._pages(path, "task_instances"))

    def tries(self, dag_id: str, run_id: str, task_id: str) -> list[Json]:
        """Every try of one task, oldest first."""
        path = f"/api/v2/dags/{_quote(dag_id)}/dagRuns/{_quote(run_id)}/taskInstances/{_quote(task_id)}/tries"
        return list(self._call("GET", path)["task_instances"])

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> list[str]:
        """The log lines of one try."""
        path = (
            f"/api/v2/dags/{_quote(dag_id)}/dagRuns/{_quote(run_id)}/taskInstances/{_quote(task_id)}/logs/{try_number}"
        )
        content = self._call("GET", f"{path}?full_content=true")["content"]
        return [line for entry in content for line in _log_lines(entry)]

    def ensure_pools(self, pools: Iterable[Pool]) -> None:
        """Create the pools that are missing and set the others to what is asked."""
        known = {pool["name"] for pool in self._pages("/api/v2/pools", "pools")}
        for pool in pools:
            if pool["name"] in known:
                settings = {key: value for key, value in pool.items() if key != "name"}
                # A change must repeat the name, which it calls `pool`.
                self._call("PATCH", f"/api/v2/pools/{_quote(pool['name'])}", {"pool": pool["name"], **settings})
            else:
                self._call("POST", "/api/v2/pools", dict(pool))

    def approvals(self) -> list[Json]:
        """Human-in-the-loop requests whose task waits: one that is still being parked would lose its answer."""
        query = {"response_received": "false", "state": "awaiting_input"}
        return list(self._pages("/api/v2/dags/~/dagRuns/~/hitlDetails", "hitl_details", query))

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, form: Mapping[str, Any]) -> Json:
        """Answer a waiting request: `option` is `Approve` or `Reject`, `form` its fields."""
        path = f"/api/v2/dags/{_quote(dag_id)}/dagRuns/{_quote(run_id)}/taskInstances/{_quote(task_id)}/-1/hitlDetails"
        return self._call("PATCH", path, {"chosen_options": [option], "params_input": dict(form)})

    def _pages(self, path: str, key: str, query: Mapping[str, str] | None = None) -> Iterator[Json]:
        offset = 0
        while True:
            asked = urllib.parse.urlencode({**(query or {}), "limit": _PAGE, "offset": offset})
            page = self._call("GET", f"{path}?{asked}")
            yield from page[key]
            offset += _PAGE
            if offset >= page["total_entries"]:
                return

    def _call(self, method: str, path: str, body: Json | None = None, tries: int = _TRIES) -> Json:
        if self._token is None:
            credentials = {"username": self._user, "password": self._password}
            self._token = str(self._send("POST", "/auth/token", credentials, {})["access_token"])
        try:
            return self._send(method, path, body, {"Authorization": f"Bearer {self._token}"})
        except AirflowApiError as error:
            expired = error.status == 401
            if tries == 1 or not (expired or _rolled_back(error)):
                raise
        if expired:
            self._token = None
        return self._call(method, path, body, tries - 1)

    def _send(self, method: str, path: str, body: Json | None, headers: Mapping[str, str]) -> Json:
        where = f"{method} {self._url}{path.partition('?')[0]}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the address is the profile's own, always http on loopback
            self._url + path, data, {"Content-Type": "application/json", "Accept": "application/json", **headers}
        )
        request.method = method
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - see above
                return json.loads(answer.read() or b"{}")  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            why = error.read().decode(errors="replace")[:500]
            raise AirflowApiError("Airflow refused a call.", where=where, why=why, status=error.code) from error
        except OSError as error:
            raise AirflowApiError("Airflow did not answer.", where=where, why=str(error)) from error


def _rolled_back(error: AirflowApiError) -> bool:
    """Whether nothing was written because Airflow did not get hold of its database.

    On SQLite its API server gets into its own way: `log_action` waits for the write lock on the event loop, which the
    request that holds the lock needs to end. SQLite's five seconds of patience part them, and one of the two fails.
    """
    return error.status == 500 and "Database error" in error.why


def _log_lines(entry: str | Json) -> Iterator[str]:
    """A log entry as lines: its text, and the exceptions that it carries beside it."""
    if isinstance(entry, str):
        yield entry
        return
    yield str(entry.get("event", ""))
    for error in entry.get("error_detail") or []:
        yield f"{error['exc_type']}: {error['exc_value']}"


def _quote(part: str) -> str:
    return urllib.parse.quote(part, safe="~")
