"""What the steps of a training run share on their command lines."""

from __future__ import annotations

import argparse

from infra.arguments import add_range


def of_run(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add what names a training run: `--system`, `--run-id`, and its range."""
    parser.add_argument("--system", required=True, help="folder of training/")
    parser.add_argument("--run-id", required=True, help="the Airflow run, or any name that stays the same for one run")
    return add_range(parser)
