"""Feast's own feature server over the online store, on loopback, behind a check of what it is asked.

Inputs of the on-demand view go inside `entities`, beside the ids:
`{"feature_service": "next_item_v1", "entities": {"user_id": ["7"], "item_id": ["3"], "as_of_unix": [1525132800]}}`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from feature_store import questions
from feature_store.definitions import VIEWS, feast_objects
from feature_store.sources import Pinned, pin, sources_of
from feature_store.store import apply, opened_store, single_writer
from infra.lake import Lake
from infra.profile import Profile

HOST = "127.0.0.1"


def apply_definitions(profile: Profile) -> list[Pinned]:
    """Bring the profile's registry to the definitions, over the newest snapshots; checked afterwards."""
    lake = Lake(profile)
    pins = [pin(lake, view.table) for view in VIEWS]
    with single_writer(profile), opened_store(profile) as store:
        apply(store, feast_objects(sources_of(profile, pins)))
    return pins


def application(store: Any) -> Any:
    """Feast's FastAPI app: a question that it cannot answer is refused with what is wrong, and no failure of its own
    tells more than that it failed."""
    from fastapi import Request, Response
    from fastapi.responses import JSONResponse
    from feast.feature_server import get_app

    app = get_app(store)
    explain = app.exception_handlers[Exception]

    async def check(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if (request.method, request.url.path) != ("POST", "/get-online-features"):
            return await answer(request)
        length = request.headers.get("content-length")
        if length is None:
            return _refused(411, questions.Fault("expected a header Content-Length"))
        if int(length) > questions.MAX_BYTES:
            return _refused(413, questions.Fault(f"expected at most {questions.MAX_BYTES} bytes; ask in several calls"))
        found = questions.faults(await request.body())
        return _refused(422, *found) if found else await answer(request)

    def _refused(status: int, *found: questions.Fault) -> Response:
        return JSONResponse({"detail": [fault.detail() for fault in found]}, status)

    async def failed(request: Request, error: Exception) -> Response:
        told: Response = await explain(request, error)
        return told if told.status_code < 500 else JSONResponse({"detail": "The server failed. Its log says why."}, 500)

    app.middleware("http")(check)
    app.add_exception_handler(Exception, failed)
    return app


def serve(profile: Profile) -> None:
    """Answer on the profile's port until stopped; starts with an empty online store, too."""
    import uvicorn

    apply_definitions(profile)
    with opened_store(profile) as store:
        uvicorn.run(application(store), host=HOST, port=profile.ports.feast, access_log=False, log_level="warning")
