"""A two-layer model and a small vocabulary, shared by the training tests."""

from collections.abc import Iterator

import pytest
import torch
from transformers import PreTrainedModel

from training.core.backbone import BackboneConfig, build_backbone
from training.core.packing import Sample
from training.core.tokens import Vocabulary, train_text_tokenizer

TINY = BackboneConfig(
    hidden_size=16, layers=2, heads=2, kv_heads=1, head_size=8, intermediate_size=24, max_positions=64
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices this small run faster on one thread, and the tests do not compete with others for the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def vocabulary() -> Vocabulary:
    tokenizer = train_text_tokenizer(["blue pen", "red pen", "paper"], 270)
    return Vocabulary.create(tokenizer, {"item": (4, 4), "user": (3,)}, special=["<next_item>"])


@pytest.fixture
def model(vocabulary: Vocabulary) -> PreTrainedModel:
    return build_backbone(TINY, vocabulary, seed=7)


@pytest.fixture
def samples() -> list[Sample]:
    """24 samples of mixed length whose response repeats the prompt's last token."""
    return [
        Sample(tuple(270 + (n * k) % 9 for k in range(1 + n % 5)), (270 + (n * (n % 5)) % 9, 2)) for n in range(1, 25)
    ]
