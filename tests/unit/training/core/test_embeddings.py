"""The cache of text embeddings: what is encoded, what is not encoded again, what a kill loses."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from training.core import embeddings
from training.core.errors import DataError


class FakeEncoder:
    """Encodes a text to its length and first letter; counts what it was asked."""

    asked: ClassVar[list[str]] = []
    dies_after: ClassVar[int] = 10**9
    max_seq_length = 0

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def encode(self, texts: list[str], **_: object) -> NDArray[np.float64]:
        if len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        self.asked.extend(texts)
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float64)


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(FakeEncoder, "asked", [])
    monkeypatch.setattr(embeddings, "_CHUNK", 2)
    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = FakeEncoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    return folder


def test_vectors_come_in_the_order_of_the_texts_whatever_the_order_of_encoding(encoder: Path, tmp_path: Path) -> None:
    vectors = embeddings.embed_texts(["ccc", "a", "bb", "a"], tmp_path / "cache", encoder=encoder)
    assert vectors.tolist() == [[3, 99], [1, 97], [2, 98], [1, 97]]
    assert sorted(FakeEncoder.asked) == ["a", "bb", "ccc"]


def test_how_far_a_large_catalogue_is_can_be_read(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embeddings.embed_texts(["ccc", "a", "a"], tmp_path / "cache", encoder=encoder)
    assert "embed: 2/2 texts" in capsys.readouterr().err


def test_only_texts_that_are_new_are_encoded(encoder: Path, tmp_path: Path) -> None:
    first = embeddings.embed_texts(["a", "bb"], tmp_path / "cache", encoder=encoder)
    FakeEncoder.asked.clear()
    second = embeddings.embed_texts(["bb", "dddd", "a"], tmp_path / "cache", encoder=encoder)
    assert FakeEncoder.asked == ["dddd"]
    assert second[[2, 0]].tolist() == first.tolist()


def test_a_kill_loses_at_most_the_chunk_at_hand(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    monkeypatch.setattr(FakeEncoder, "dies_after", 4)
    with pytest.raises(KeyboardInterrupt):
        embeddings.embed_texts(texts, tmp_path / "cache", encoder=encoder)
    monkeypatch.setattr(FakeEncoder, "dies_after", 10**9)
    FakeEncoder.asked.clear()
    embeddings.embed_texts(texts, tmp_path / "cache", encoder=encoder)
    assert FakeEncoder.asked == ["eeeee"]


def test_another_cut_of_the_texts_is_another_embedding(encoder: Path, tmp_path: Path) -> None:
    embeddings.embed_texts(["a"], tmp_path / "cache", encoder=encoder, max_tokens=8)
    embeddings.embed_texts(["a"], tmp_path / "cache", encoder=encoder, max_tokens=16)
    assert FakeEncoder.asked == ["a", "a"]


def test_an_encoder_whose_files_have_changed_is_another_one(encoder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    embeddings.embed_texts(["a"], cache, encoder=encoder)
    embeddings.embed_texts(["a"], cache, encoder=encoder.rename(tmp_path / "elsewhere"))
    assert FakeEncoder.asked == ["a"]
    (tmp_path / "elsewhere" / "model.safetensors").write_bytes(b"y")  # as many bytes, another model
    embeddings.embed_texts(["a"], cache, encoder=tmp_path / "elsewhere")
    assert FakeEncoder.asked == ["a", "a"]


@pytest.mark.parametrize("fault", ["empty", "cut", "of zeros", "of a disk that does not answer"])
def test_what_cannot_be_read_is_told_and_made_again(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    first = embeddings.embed_texts(["a", "bb", "ccc"], tmp_path / "cache", encoder=encoder)
    embeddings._keys.cache_clear()
    files = (tmp_path / "cache").rglob(f"*{embeddings.SUFFIX}")
    broken = next(file for file in files if len(embeddings._keys(file)) == 2)
    embeddings._keys.cache_clear()
    whole = broken.read_bytes()
    broken.write_bytes({"empty": b"", "cut": whole[:-9], "of zeros": bytes(len(whole))}.get(fault, whole))
    if fault.startswith("of a disk"):
        own = embeddings._table
        monkeypatch.setattr(embeddings, "_table", lambda path: own(path) if path != broken else os.listdir(broken))
    FakeEncoder.asked.clear()
    again = embeddings.embed_texts(["a", "bb", "ccc"], tmp_path / "cache", encoder=encoder)
    assert again.tolist() == first.tolist() and FakeEncoder.asked == ["a", "bb"]
    assert str(broken) in capsys.readouterr().err and not broken.exists()


def test_what_is_asked_for_is_marked_as_used_and_nothing_else(encoder: Path, tmp_path: Path) -> None:
    embeddings.embed_texts(["a", "bb", "ccc"], tmp_path / "cache", encoder=encoder)
    files = sorted((tmp_path / "cache").rglob(f"*{embeddings.SUFFIX}"), key=lambda file: len(embeddings._keys(file)))
    for file in files:
        os.utime(file, (0, 0))
    embeddings.embed_texts(["ccc", "no", "no"], tmp_path / "cache", encoder=encoder)
    assert files[0].stat().st_mtime > 0 and files[1].stat().st_mtime == 0


def test_an_encoder_that_is_not_there_is_refused_and_nothing_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the text encoder is missing(.|\n)*nowhere"):
        embeddings.embed_texts(["a"], tmp_path / "cache", encoder=tmp_path / "nowhere")


def test_the_embedded_encoder_is_a_whole_folder() -> None:
    folder = embeddings.embedded_encoder()
    assert {"config.json", "modules.json", "tokenizer.json", "model.safetensors"} <= {p.name for p in folder.iterdir()}
