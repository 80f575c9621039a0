"""Stages in several processes under FSDP on the CPU, as they are launched on GPUs: `launched.py SPEC...`."""

import json
import sys
from pathlib import Path

import torch

from tests.integration.training.two_processes import shard
from training.__main__ import main
from training.core.device import accelerator

if __name__ == "__main__":
    torch.set_num_threads(1)
    shard()
    for file in sys.argv[1:]:
        spec = json.loads(Path(file).read_text())
        code = main([f"{spec['system']}.{spec['stage']}", "--spec", file])
        if code:
            sys.exit(code)
        accelerator().wait_for_everyone()  # a launch has one stage: the next one begins when all is written
