"""Questions to an OpenAI-compatible `/chat/completions`: one after another server failure, and never beyond the budget.

Each call takes what it can cost at most before it is made. A prompt has no more tokens than bytes, beside a few for
each message. What a call that came to nothing may have cost all the same counts as spent.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from training.core.errors import DataError
from training.semantic_judge.teachers.cache import Budget

Failure = Literal["down", "slow", "limited", "not_json", "unparsable", "refused", "over_budget", "deadline"]
"""Nobody answers, or not in time, or there are too many questions; what comes is no JSON, or not of the form asked for;
the server refuses the question; there are no tokens left, or no time."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OF_A_MESSAGE = 32  # tokens that a server's template adds, at most
_LONGEST_PAUSE = 60.0
_GIVE_UP_AFTER = 3  # questions in a row that nobody answers, each with all its tries

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class EndpointConfig:
    """`url`: up to and without `/chat/completions`. `key_variable`: the environment variable that holds the key; empty:
    the server wants none. `batch` examples are asked about at once, in `concurrency` calls side by side. `token_budget`
    is of all tries of a run together. `backoff_seconds`: before the second try, twice as long before each further one.
    """

    url: str
    model: str
    key_variable: str = ""
    batch: int = 4
    concurrency: int = 8
    answer_tokens: int = 160
    token_budget: int = 5_000_000
    deadline_minutes: float = 60.0
    timeout_seconds: float = 60.0
    tries: int = 6
    backoff_seconds: float = 1.0


class Failed(Exception):
    """A question came to nothing. `again`: another try can help, not before so many seconds. `billed`: it may have cost
    what it could cost."""

    def __init__(self, kind: Failure, *, again: bool, billed: bool, after: float = 0.0) -> None:
        super().__init__(kind)
        self.kind, self.again, self.billed, self.after = kind, again, billed, after


def headers_of(config: EndpointConfig) -> dict[str, str]:
    """With the key, which nothing else holds. DataError where it is not set, or would travel in the clear."""
    where = urlsplit(config.url)
    if where.scheme != "https" and where.hostname not in _LOOPBACK:
        raise DataError(
            "the teacher's endpoint is neither https nor on this machine",
            where=config.url,
            why="what users did, and the key, would travel in the clear",
            do="give an https address",
        )
    if not config.key_variable:
        return {}
    key = os.environ.get(config.key_variable, "")
    if not key:
        raise DataError(
            "the teacher's key is not set",
            where=f"the environment variable {config.key_variable}",
            do="set it where the stage runs, or leave `key_variable` empty for a server without keys",
        )
    return {"Authorization": f"Bearer {key}"}


class Chat:
    """Asks one question at a time for each of its callers, who may be many; what is learnt of the server, all know."""

    def __init__(self, config: EndpointConfig, client: httpx.AsyncClient, budget: Budget) -> None:
        self._config, self._client, self._budget = config, client, budget
        self._until = time.monotonic() + config.deadline_minutes * 60.0
        self._not_before = 0.0
        self._in_vain = 0
        self._settled = asyncio.Condition()
        self._open = 0

    async def ask(self, messages: Messages, answer_tokens: int) -> str:
        """What the model answers. Raises Failed when the last try has, DataError where no try ever can."""
        for tried in range(self._config.tries):
            if self._in_vain >= _GIVE_UP_AFTER:
                raise Failed("down", again=False, billed=False)
            await self._wait()
            try:
                answer = await self._paid(messages, answer_tokens)
            except Failed as failure:
                if not failure.again or tried + 1 == self._config.tries:
                    # Whoever refuses or says what nobody can read is there.
                    self._in_vain = self._in_vain + 1 if failure.kind == "down" else 0
                    raise
                pause = min(self._config.backoff_seconds * 2.0**tried, _LONGEST_PAUSE)
                # The server speaks of all questions, not of this one.
                self._not_before = max(self._not_before, time.monotonic() + failure.after)
                await self._sleep(pause)
            else:
                self._in_vain = 0
                return answer
        raise AssertionError("a question ends with an answer or a failure")

    async def _wait(self) -> None:
        """Until the server may be asked again."""
        while (left := self._not_before - time.monotonic()) > 0:
            await self._sleep(left)
        if time.monotonic() >= self._until:
            raise Failed("deadline", again=False, billed=False)

    async def _sleep(self, seconds: float) -> None:
        left = self._until - time.monotonic()
        if seconds >= left:
            raise Failed("deadline", again=False, billed=False)
        await asyncio.sleep(seconds)

    async def _paid(self, messages: Messages, answer_tokens: int) -> str:
        """One try, within the budget."""
        most = sum(len(one["content"].encode()) + _OF_A_MESSAGE for one in messages) + answer_tokens
        call = await self._reserved(most)
        used = most
        try:
            answer, used = await self._tried(messages, answer_tokens, most)
        except Failed as failure:
            used = most if failure.billed else 0
            raise
        finally:
            self._open -= 1
            self._budget.settle(call, used)
            async with self._settled:
                self._settled.notify_all()
        return answer

    async def _reserved(self, most: int) -> int:
        """Wait for calls under way to give back what they do not need, before there is no budget left."""
        async with self._settled:
            while (call := self._budget.reserve(most)) is None:
                if not self._open:
                    raise Failed("over_budget", again=False, billed=False)
                await self._settled.wait()
            self._open += 1
        return call

    async def _tried(self, messages: Messages, answer_tokens: int, most: int) -> tuple[str, int]:
        """The answer, and the tokens that it has cost."""
        asked = {
            "model": self._config.model,
            "messages": list(messages),
            "max_tokens": answer_tokens,
            "temperature": 0,
            "response_format": {"type": "json_object"},
        }
        seconds = min(self._config.timeout_seconds, max(self._until - time.monotonic(), 0.001))
        try:
            async with asyncio.timeout(seconds):  # of the whole: a server may drip
                reply = await self._client.post("chat/completions", json=asked)
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise Failed("slow", again=True, billed=True) from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Failed("down", again=True, billed=False) from error
        except httpx.DecodingError as error:  # it is not packed as it says
            raise Failed("not_json", again=True, billed=True) from error
        except httpx.TransportError as error:  # it died in the middle
            raise Failed("down", again=True, billed=True) from error
        self._refuse_status(reply)
        return _read(reply, most)

    def _refuse_status(self, reply: httpx.Response) -> None:
        status = reply.status_code
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise Failed("limited", again=True, billed=False, after=_retry_after(reply))
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Failed("down", again=True, billed=True, after=_retry_after(reply))
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND) or reply.is_redirect:
            raise DataError(
                f"the teacher's endpoint answers {status}",
                where=self._config.url,
                why="the key, the address or the name of the model is not right; no try of any question can help",
                do=f"look at `url`, `model` ({self._config.model}) and `key_variable` of the config",
            )
        if status >= HTTPStatus.BAD_REQUEST:
            raise Failed("refused", again=False, billed=False)


def _read(reply: httpx.Response, most: int) -> tuple[str, int]:
    """The text of a completion, and its tokens as the server counts them; without a count, the most it may cost."""
    try:
        found: Any = reply.json()
        choice = found["choices"][0]
        text, whole = choice["message"]["content"], choice.get("finish_reason") != "length"
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise Failed("not_json", again=True, billed=True) from error
    usage = found.get("usage") or {}
    counted = usage.get("total_tokens") if isinstance(usage, dict) else None
    if not isinstance(text, str) or not whole:
        raise Failed("unparsable", again=False, billed=True)
    return text, counted if isinstance(counted, int) and counted >= 0 else most


def _retry_after(reply: httpx.Response) -> float:
    """Seconds, said as a number or as a time (RFC 9110, 10.2.3); 0 where nothing is said."""
    said = reply.headers.get("retry-after", "")
    if said.isdecimal():  # a raised 2 is a digit, and no number
        return float(said)
    try:
        left: float = (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
        return max(left, 0.0)
    except (TypeError, ValueError):
        return 0.0
