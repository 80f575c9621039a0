"""What reads the levels: the core's own engine, or vLLM where it is installed. Both give the same chances.

Both read what a user's items share once. The core reads all levels of an item in one pass (`core.level_chains`); vLLM
is asked for one token behind each beginning of an answer, and finds what these share in its cache of prefixes.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from training.core.backbone import load_backbone
from training.core.errors import DataError
from training.core.level_chains import LevelChain, level_chances
from training.core.sequences import Tree

Kind = Literal["core", "vllm"]


class Engine(Protocol):
    """A language model that grades."""

    def chances(self, trees: Sequence[Tree], chain: LevelChain) -> list[list[Tensor]]:
        """As `core.level_chains.level_chances`."""


class CoreEngine:
    """The core's engine on a `model` in this process."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def chances(self, trees: Sequence[Tree], chain: LevelChain) -> list[list[Tensor]]:
        """See `Engine`."""
        return level_chances(self.model.eval(), trees, chain)


class VllmEngine:
    """vLLM's offline API on the model in `folder`. DataError where vLLM is not installed.

    Log-probs are asked for behind the cut to the levels (`processed_logprobs`): by default vLLM gives those before it,
    among which a level may not be.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._vllm: Any = importlib.import_module("vllm")
        except ModuleNotFoundError as error:
            raise DataError(
                "the engine vllm is asked for, and vLLM is not installed",
                why="it needs a GPU and several gigabytes, so it is no dependency of this project",
                do="run: python -m pip install 'vllm>=0.10.2', or set engine: core",
            ) from error
        self._model = self._vllm.LLM(
            model=str(folder), enable_prefix_caching=True, logprobs_mode="processed_logprobs", generation_config="vllm"
        )

    def chances(self, trees: Sequence[Tree], chain: LevelChain) -> list[list[Tensor]]:
        """See `Engine`."""
        texts = [tree.prompt + response for tree in trees for response in tree.responses]
        beginnings = [(), *chain.nodes]
        asked = [{"prompt_token_ids": [*text, *node]} for text in texts for node in beginnings]
        params = [self._params(chain.tokens[len(node)]) for _ in texts for node in beginnings]
        answers = self._model.generate(asked, params, use_tqdm=False)
        behind = iter(
            [answer.outputs[0].logprobs[0][token].logprob for token in param.allowed_token_ids]
            for answer, param in zip(answers, params, strict=True)
        )
        rows = [[next(behind) for _ in beginnings] for _ in texts]
        depths = range(len(chain.tokens))
        places = [[place for place, node in enumerate(beginnings) if len(node) == depth] for depth in depths]
        of_level = [torch.tensor([[row[place] for place in own] for row in rows]).exp() for own in places]
        counts = [len(tree.responses) for tree in trees]
        parts = [torch.split(chances, counts) for chances in chain.over_all(of_level)]
        return [list(one) for one in zip(*parts, strict=True)]

    def _params(self, levels: Sequence[int]) -> Any:
        return self._vllm.SamplingParams(
            max_tokens=1, temperature=1.0, logprobs=len(levels), allowed_token_ids=list(levels), detokenize=False
        )


def load_engine(kind: Kind, folder: Path) -> Engine:
    """The engine of this kind on the model in `folder`. DataError for a folder that cannot be used."""
    return VllmEngine(folder) if kind == "vllm" else CoreEngine(load_backbone(folder)[0])
