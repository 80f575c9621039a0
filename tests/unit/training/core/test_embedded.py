"""The language model that comes as a package: where it is looked for, and what is refused."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from training.core import embedded
from training.core.backbone import BackboneConfig, LoraSettings, outline
from training.core.embedded import INSTALL, SMOLLM2, local_folder, weights_hash
from training.core.errors import DataError
from training.core.footprint import Load, footprint

ROOT = Path(__file__).parents[4]


class Installed:
    """A file of a package."""

    def __init__(self, path: Path) -> None:
        self._path, self.name = path, path.name

    def locate(self) -> Path:
        return self._path


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PLUMBLINE__HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_any_other_path_is_a_folder() -> None:
    assert local_folder("/models/qwen") == Path("/models/qwen")


def test_a_name_that_is_not_known_is_refused() -> None:
    for work in (local_folder, embedded.embedded_config):
        with pytest.raises(DataError, match=r"embedded:gpt(.|\n)*embedded:smollm2"):
            work("embedded:gpt")


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.files", missing)
    with pytest.raises(DataError, match="not installed") as refusal:
        local_folder(SMOLLM2)
    assert refusal.value.do == f"run: {INSTALL}"


def test_other_weights_of_that_name_are_refused_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: Path
) -> None:
    weights = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    weights.write_bytes(b"GGUF of another model")
    monkeypatch.setattr("importlib.metadata.files", lambda name: [Installed(weights)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(DataError, match="not the known ones"):
        local_folder(SMOLLM2)
    assert [path for path in state.rglob("*") if path.is_dir()] == [state / "models"]


def test_a_folder_that_is_there_is_taken_without_the_package(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setattr(embedded, "_source", None)
    folder = state / "models" / "smollm2-b179c9523d0e"
    folder.mkdir(parents=True)
    assert local_folder(SMOLLM2) == folder


def test_the_set_up_installs_what_the_sentence_says() -> None:
    setup = (ROOT / "scripts" / "setup.sh").read_text()
    assert "--no-deps" in INSTALL and "smollm2_version=0.1.2\ngguf_version=0.19.0\n" in setup
    assert {f"{embedded.PACKAGE}=={embedded.VERSION}", "gguf==0.19.0"} <= set(INSTALL.split())


def test_its_size_is_known_without_its_package() -> None:
    config = BackboneConfig(path=SMOLLM2)
    assert sum(weight.numel() for weight in outline(config, tokens=0).parameters()) == 134_515_008
    adapted = Load(BackboneConfig(path=SMOLLM2, lora=LoraSettings(rank=16)), 0, 8, 128, 128, 128)
    found = footprint(adapted, 1)
    assert found.trainable == 30 * 16 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536))
    assert (found.weights, found.max_positions) == (134_515_008 + found.trainable, 8192)


def test_the_hash_of_weights_is_of_names_and_bytes_in_the_order_of_the_names() -> None:
    one, two = torch.tensor([1.0, 2.0]), torch.tensor([3], dtype=torch.bfloat16)
    assert weights_hash({"b": two, "a": one}) == weights_hash({"a": one, "b": two})
    assert len({weights_hash(w) for w in ({"a": one}, {"b": one}, {"a": one + 1}, {"a": one, "b": two})}) == 4
