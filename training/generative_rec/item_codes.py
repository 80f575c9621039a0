"""Items as tokens: the semantic ids of the catalogue in a vocabulary, and the prompts that are built from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import torch
from transformers import PreTrainedModel

from training.core.checkpoint import read_tensors
from training.core.errors import DataError
from training.core.packing import Sample
from training.core.tables import read_parquet
from training.core.tokens import Kind, Vocabulary
from training.core.trie import Trie

CODES_FILE, USER_CODES_FILE = "codes.parquet", "user_codes.parquet"
EARLY_CODES_FILE = "early_user_codes.parquet"

Codes = Mapping[str, tuple[int, ...]]


def read_codes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The codes of every item, from `codes.parquet` in the folder of a stage that makes semantic ids."""
    return _read(folder / CODES_FILE, "item")


def read_user_codes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The codes of the users, from `user_codes.parquet`; none where the stage makes ids of items only."""
    return _read(folder / USER_CODES_FILE, "user") if (folder / USER_CODES_FILE).is_file() else {}


def read_early_codes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The codes that users had at the first half of their items: to train with, as they do not know the second."""
    return _read(folder / EARLY_CODES_FILE, "user") if (folder / EARLY_CODES_FILE).is_file() else {}


def _read(file: Path, kind: str) -> dict[str, tuple[int, ...]]:
    table = read_parquet("codes", [file], {f"{kind}_id": pa.string(), "codes": pa.list_(pa.int32())})
    codes = dict(zip(table[f"{kind}_id"].to_pylist(), map(tuple, table["codes"].to_pylist()), strict=True))
    if len(codes) != table.num_rows:
        raise DataError(f"two rows of codes for one {kind}", where=str(file), do="run the stage that made them again")
    return codes


def codebook_sizes(codes: Codes) -> tuple[int, ...]:
    """The number of codes of each level that are in use (the highest code + 1)."""
    depth = max(map(len, codes.values()), default=0)
    return tuple(1 + max(code[level] for code in codes.values() if len(code) > level) for level in range(depth))


def codebooks(folder: Path) -> dict[Kind, tuple[int, ...]]:
    """The code levels that a vocabulary for the semantic ids of `folder` needs: items', and users' if they have any."""
    users = codebook_sizes(read_user_codes(folder))
    return {"item": codebook_sizes(read_codes(folder)), **({"user": users} if users else {})}


def meaning_of(folder: Path) -> str:
    """sha256 of all items' and users' codes: two sets of semantic ids may be of the same sizes."""
    codes = [sorted(read_codes(folder).items()), sorted(read_user_codes(folder).items())]
    return hashlib.sha256(json.dumps(codes).encode()).hexdigest()


def start_from_text(model: PreTrainedModel, vocabulary: Vocabulary, folder: Path, strength: float, seed: int) -> None:
    """Let the embeddings of the item codes start near what the codes stand for, so that alike codes begin alike.

    w_c <- w_c + strength * (|w| / |e_1|) * P e_c: e_c is the code's vector in the quantizer's codebook, P a random
    rotation into the model's width, |.| mean lengths over the codes (of the first level for e), so that later levels
    move their codes by less. A level without a codebook, such as the further code of collided items, stays random.
    """
    if strength == 0.0:
        return
    books, levels = read_tensors(folder / "quantizer.safetensors"), vocabulary.code_table("item")
    known = [(rows, books[f"codebook.{n}"][: len(rows)]) for n, rows in enumerate(levels) if f"codebook.{n}" in books]
    if not all(book.isfinite().all() for book in books.values()):
        raise DataError(
            "a code's vector is not finite", where=str(folder), do="run the stage that made the codes again"
        )
    embedding = model.get_input_embeddings().weight
    width, own = embedding.shape[1], known[0][1].shape[1]
    deep = max(width, own)
    rotation = torch.linalg.qr(torch.randn(deep, deep, generator=torch.Generator().manual_seed(seed)))[0]
    with torch.no_grad():
        scale = strength * embedding[levels[0]].norm(dim=1).mean() / known[0][1].norm(dim=1).mean()
        for rows, book in known:
            embedding[rows] += scale * (book @ rotation[:own, :width]).to(embedding)


@dataclass(frozen=True)
class ItemCodes:
    """The catalogue in tokens: row i of `item_ids` has the token ids `tokens[i]` and is item i of the trie.

    `users`: the token ids of the users that have a semantic id of their own; `early`: of those that had one at the
    first half of their items, for training. `trie`: over all items. Items that share
    their codes, or whose codes begin another's, are a DataError.
    """

    item_ids: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    vocabulary: Vocabulary
    users: Codes = field(default_factory=dict)
    early: Codes = field(default_factory=dict)
    trie: Trie = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "trie", Trie.build(self.tokens))

    @classmethod
    def load(cls, folder: Path, vocabulary: Vocabulary) -> ItemCodes:
        """Read the semantic ids of `folder`; DataError if `vocabulary` was made for others."""
        sizes = codebooks(folder)
        if sizes != vocabulary.codebooks or vocabulary.meaning not in (None, meaning_of(folder)):
            raise DataError(
                "the vocabulary was made for other semantic ids",
                where=str(folder),
                why=f"codes per level: {sizes}, the vocabulary has {dict(vocabulary.codebooks)}; "
                "or the items and users have other codes",
                do="use the semantic ids that the checkpoint was trained with",
            )
        items = _tokens(vocabulary, "item", read_codes(folder))
        users, early = (_tokens(vocabulary, "user", read(folder)) for read in (read_user_codes, read_early_codes))
        return cls(tuple(items), tuple(items.values()), vocabulary, users, early)

    @cached_property
    def row(self) -> dict[str, int]:
        """The row number of an item id."""
        return {item: row for row, item in enumerate(self.item_ids)}

    @cached_property
    def item_of(self) -> dict[tuple[int, ...], str]:
        """The item id of the tokens of an item."""
        return dict(zip(self.tokens, self.item_ids, strict=True))

    def of(self, item: str) -> tuple[int, ...]:
        """The token ids of an item; DataError if it has no semantic id."""
        if item not in self.row:
            raise DataError(f"item {item} has no semantic id", do="run the semantic-id stage on the current catalogue")
        return self.tokens[self.row[item]]

    def prompt(self, history: Sequence[str], last: int, user: str | None = None) -> tuple[int, ...]:
        """The begin token, the user's code and the `last` items of a history (oldest first, may be empty).

        A user whom training has not seen has no code, as everybody where only items have codes. Before an empty history
        nobody is named: training never begins a list with a code (it learns what came after the items that the code
        knows), and a model that is asked so writes no items.
        """
        code = self.of_user(user) if history else ()
        items = (token for item in history[-last:] for token in self.of(item))
        return (self.vocabulary.tokenizer.bos_token_id, *code, *items)

    def of_user(self, user: str | None) -> tuple[int, ...]:
        """The token ids of a user's semantic id; none for a user without one."""
        return () if user is None else self.users.get(user, ())

    def next_item(self, history: Sequence[str], target: str, last: int, user: str | None = None) -> Sample:
        """The sample that learns the target after the history."""
        return Sample(self.prompt(history, last, user), self.of(target))


def _tokens(vocabulary: Vocabulary, kind: Kind, codes: Codes) -> dict[str, tuple[int, ...]]:
    table = vocabulary.code_table(kind)
    return {name: tuple(table[level][code] for level, code in enumerate(row)) for name, row in codes.items()}
