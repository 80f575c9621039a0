"""A language model behind an OpenAI-compatible endpoint as the teacher.

What users and suppliers wrote stands fenced and escaped in the prompt. An answer of exactly the form asked for counts,
and no other; what fails has no label this time and is asked again the next time. Answers are cached by row and teacher.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from training.core.errors import DataError
from training.core.progress import Progress
from training.semantic_judge.aspects import Aspect
from training.semantic_judge.evidence import Evidence
from training.semantic_judge.examples import Examples, Floats, Ints, Item
from training.semantic_judge.teachers.cache import AnswerCache, Budget, Journal
from training.semantic_judge.teachers.chat import Chat, EndpointConfig, Failed, Messages, headers_of
from training.semantic_judge.teachers.labels import Labels

_TEMPLATE = Path(__file__).with_name("prompt.txt")
_LONGEST_TEXT, _LONGEST_REASON = 120, 300

Answer = Mapping[str, Any]
"""A level by the name of each aspect, and the `reason`."""


@dataclass(frozen=True)
class EndpointTeacher:
    """A `Teacher`. `answers`: the folder of the cache, which outlives runs; `spent`: the journal of a run's budget."""

    config: EndpointConfig
    aspects: Sequence[Aspect]
    evidence: Evidence
    answers: Path
    spent: Path

    @property
    def hash(self) -> str:
        """See `Teacher.hash`."""
        values = {"model": self.config.model, "prompt": self.instruction, "longest": _LONGEST_TEXT}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def instruction(self) -> str:
        """What the model is told; the aspects and their grids stand in it."""
        lines = [f"{one.name}: {one.question} {_grid(one)}" for one in self.aspects]
        keys = ", ".join(f'"{one.name}": 0' for one in self.aspects)
        return _TEMPLATE.read_text().format(aspects="\n".join(lines), keys=keys)

    def teach(self, examples: Examples, rows: Ints, numbers: Floats) -> Labels:
        """See `Teacher.teach`. Raises DataError where the address, the key or the model is wrong."""
        asked = self._asked(examples, rows, numbers)
        keys = [AnswerCache.key(text) for text in asked]
        with Journal(self.answers / f"{self.hash}.jsonl") as kept, Journal(self.spent) as spent:
            cache, budget = AnswerCache(kept), Budget(spent, self.config.token_budget)
            missing = {key: text for key, text in zip(keys, asked, strict=True) if cache.get(key) is None}
            failures = asyncio.run(self._ask_all(missing, cache, budget)) if missing else Counter[str]()
            found = [cache.get(key) for key in keys]
        labels = Labels.none(len(rows), self.aspects)
        for place, answer in enumerate(found):
            if answer is not None:
                labels.levels[place] = [answer[one.name] for one in self.aspects]
        reasons = [answer["reason"] if answer else None for answer in found]
        return Labels(labels.levels, reasons, dict(failures))

    async def _ask_all(self, missing: Mapping[str, str], cache: AnswerCache, budget: Budget) -> Counter[str]:
        """Ask about all of them, some at once; how many came to nothing, by the kind of failure."""
        keys, size = list(missing), self.config.batch
        parts = iter([keys[start : start + size] for start in range(0, len(keys), size)])
        failures, headers = Counter[str](), headers_of(self.config)
        base = self.config.url.rstrip("/") + "/"
        with Progress(len(keys), "ask the teacher", "example") as progress:
            async with httpx.AsyncClient(base_url=base, headers=headers, timeout=self.config.timeout_seconds) as client:
                chat = Chat(self.config, client, budget)

                async def work() -> None:
                    for part in parts:  # shared: each part goes to one worker
                        try:
                            text = await chat.ask(self._messages([missing[key] for key in part]), self._room(part))
                            cache.put(dict(zip(part, parsed(text, len(part), self.aspects), strict=True)))
                        except Failed as failure:
                            failures[failure.kind] += len(part)
                        progress.advance(len(part), failed=str(failures.total()))

                try:
                    async with asyncio.TaskGroup() as workers:
                        for _ in range(self.config.concurrency):
                            workers.create_task(work())
                except BaseExceptionGroup as several:
                    refused = several.subgroup(DataError)
                    if refused is None:
                        raise
                    raise refused.exceptions[0] from None
        return failures

    def _room(self, part: Sequence[str]) -> int:
        return self.config.answer_tokens * len(part)

    def _messages(self, texts: Sequence[str]) -> Messages:
        rows = "\n".join(f"row {place}: {text}" for place, text in enumerate(texts, start=1))
        return (
            {"role": "system", "content": self.instruction},
            {"role": "user", "content": f"<data>\n{rows}\n</data>"},
        )

    def _asked(self, examples: Examples, rows: Ints, numbers: Floats) -> list[str]:
        """What is told of each example, as JSON that cannot spell a fence."""
        cases, words = examples.cases, self.evidence.sentences(numbers)
        items, hindsight = cases.catalogue.items, examples.hindsight
        told = []
        for place, row in enumerate(rows.tolist()):
            user = cases.user(row)
            history = [cases.catalogue.numbers[item] for item in user.history]
            later = hindsight.later[hindsight.starts[row] : hindsight.starts[row + 1]].tolist()
            values = {
                "item": _item(cases.judged(row)),
                "history, oldest first": [
                    _cut(items[item].title) + (f" ({stars:g} of 5)" if stars is not None else "")
                    for item, stars in zip(history, user.ratings, strict=True)
                ],
                "profile": _cut(user.profile),
                "looks for": _cut(user.context),
                "counted": words[place],
                "taken after": [_cut(items[item].title) for item in later],
            }
            text = json.dumps({name: value for name, value in values.items() if value}, ensure_ascii=False)
            told.append(text.replace("<", "\\u003c"))
        return told


def parsed(text: str, rows: int, aspects: Sequence[Aspect]) -> list[Answer]:
    """The answers of a completion about so many rows. Raises Failed for anything but exactly the form asked for.

    One object and nothing around it; no key twice, none more, none fewer; levels that are on the grids.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once)
        answers = found["answers"]
        names = {"row", "reason", *(one.name for one in aspects)}
        right = (
            set(found) == {"answers"}
            and isinstance(answers, list)
            and len(answers) == rows
            and all(
                set(answer) == names
                and _whole(answer["row"], place, place)
                and isinstance(answer["reason"], str)
                and all(_whole(answer[one.name], 0, len(one.values) - 1) for one in aspects)
                for place, answer in enumerate(answers, start=1)
            )
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        right = False
    if not right:
        raise Failed("unparsable", again=False, billed=True)
    return [
        {**{one.name: answer[one.name] for one in aspects}, "reason": _whole_text(answer["reason"])[:_LONGEST_REASON]}
        for answer in answers
    ]


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _whole_text(text: str) -> str:
    """JSON can spell halves of characters, which no table can hold."""
    return text.encode("utf-8", "replace").decode()


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _grid(aspect: Aspect) -> str:
    return ", ".join(f"{level} {word}" for level, word in enumerate(aspect.words)) + "."


def _item(item: Item) -> dict[str, Any]:
    values = {"title": _cut(item.title), "brand": _cut(item.brand), "kind": _cut(item.category), "price": item.price}
    return {name: value for name, value in values.items() if value}


def _cut(text: str | None) -> str:
    return (text or "")[:_LONGEST_TEXT]
