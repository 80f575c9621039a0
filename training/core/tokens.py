"""The vocabulary: a text tokenizer, a few special tokens, and one token per semantic code.

Codes are tokens such as `<a_12><b_7><c_3>`: the letter is the level, the number the code. User codes have their own
prefix (`<ua_12>`), so the two kinds never collide. The vocabulary is saved with each checkpoint, and a checkpoint
can tell the vocabulary of another one from its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from training.core.errors import DataError
from training.core.files import write_json

Kind = Literal["item", "user"]
PREFIX: Mapping[str, str] = {"item": "", "user": "u"}
LEVELS = "abcdefgh"
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
_FILE = "vocabulary.json"


def train_text_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `size` tokens trained on `texts`; it can encode every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PAD, BOS, EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer that knows the codes of each kind; `codebooks` gives the number of codes per level.

    A backbone of this tokenizer has learnt its first `known` tokens; the others are new to it. `meaning` names what the
    codes stand for: a model that was trained with other ones must not be asked with these.
    """

    tokenizer: PreTrainedTokenizerBase
    codebooks: Mapping[str, tuple[int, ...]]
    known: int
    meaning: str | None = None

    @classmethod
    def create(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        codebooks: Mapping[Kind, Sequence[int]],
        special: Sequence[str] = (),
        meaning: str | None = None,
    ) -> Vocabulary:
        """Add pad, begin and end tokens where they are missing, `special` tokens, and all codes to `tokenizer`."""
        known = len(tokenizer)
        roles = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS}
        tokenizer.add_special_tokens({role: t for role, t in roles.items() if getattr(tokenizer, role) is None})
        tokenizer.add_tokens(list(special), special_tokens=True)
        for kind, sizes in codebooks.items():
            if len(sizes) > len(LEVELS):
                raise DataError(
                    f"{len(sizes)} code levels, at most {len(LEVELS)} have letters", do="quantize to fewer levels"
                )
            levels = zip(LEVELS, sizes, strict=False)
            names = [f"<{PREFIX[kind]}{letter}_{n}>" for letter, size in levels for n in range(size)]
            tokenizer.add_tokens(names, special_tokens=True)
        return cls(tokenizer, {kind: tuple(sizes) for kind, sizes in codebooks.items()}, known, meaning)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def token(self, name: str) -> int:
        """The id of a special token or a code by its name; DataError if it is not in the vocabulary."""
        number = self._ids.get(name)
        if number is None:
            raise DataError(f"the vocabulary has no token {name}", do="use the vocabulary that the checkpoint carries")
        return int(number)

    @cached_property
    def _ids(self) -> dict[str, int]:
        """Tokens by name: the tokenizer builds this anew, in a millisecond, whenever it is asked."""
        return dict(self.tokenizer.get_vocab())

    def code_table(self, kind: Kind) -> list[list[int]]:
        """Token id by level and code: `code_table("item")[level][code]`."""
        return [
            [self._ids[f"<{PREFIX[kind]}{LEVELS[level]}_{code}>"] for code in range(size)]
            for level, size in enumerate(self.codebooks.get(kind, ()))
        ]

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text, without begin and end tokens. A text is data: `<a_1>` in it is no code."""
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    @property
    def fingerprint(self) -> str:
        """sha256 of all tokens and their ids."""
        return hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the tokenizer and `vocabulary.json` into `folder`."""
        self.tokenizer.save_pretrained(folder)
        values = {"codebooks": self.codebooks, "fingerprint": self.fingerprint, "meaning": self.meaning}
        write_json(folder / _FILE, values)

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Read what `save` wrote; DataError if it is missing or the tokenizer is not the one that was saved."""
        path = folder / _FILE
        if not path.is_file():
            raise DataError("the checkpoint has no vocabulary", where=str(path), do="save it with its vocabulary")
        stored = json.loads(path.read_text())
        codebooks = {kind: tuple(sizes) for kind, sizes in stored["codebooks"].items()}
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        vocabulary = cls(tokenizer, codebooks, len(tokenizer), stored.get("meaning"))
        if vocabulary.fingerprint != stored["fingerprint"]:
            raise DataError("the tokenizer is not the one that was saved", where=str(folder), do="restore the folder")
        return vocabulary


def fit_embeddings(model: PreTrainedModel, vocabulary: Vocabulary, meanings: Mapping[str, str] | None = None) -> None:
    """Give a trained `model` one embedding row per token; those that it has not known, spare ones too, start alike.

    They are drawn around the mean of the known rows, with their spread, and have their typical length: among known
    tokens they neither vanish nor stand out. A token with a meaning starts as the mean of its text's rows: `meanings`
    maps token names to text (AIGQ, section 2.2: new tokens begin as the mean of their sub-words).
    """
    if model.get_input_embeddings().num_embeddings < len(vocabulary):
        model.resize_token_embeddings(len(vocabulary), mean_resizing=False)
    head: torch.Tensor = model.get_output_embeddings().weight
    with torch.no_grad():
        for weight in {id(w): w for w in (model.get_input_embeddings().weight, head)}.values():
            weight[vocabulary.known :] = _alike(weight[: vocabulary.known], len(weight) - vocabulary.known).to(weight)
            for name, text in (meanings or {}).items():
                weight[vocabulary.token(name)] = weight[vocabulary.encode_text(text)].mean(dim=0)


def _alike(rows: torch.Tensor, count: int) -> torch.Tensor:
    """`count` rows like the `rows` [n, D], each of their median length."""
    rows = rows.float()
    drawn = rows.mean(dim=0) + rows.std(dim=0) * torch.randn(count, rows.shape[1]).to(rows.device)
    length = torch.linalg.vector_norm(rows, dim=1).median()
    alike: torch.Tensor = length * drawn / torch.linalg.vector_norm(drawn, dim=1, keepdim=True)
    return alike
