"""Mechanisms shared by the training systems: backbone, tokens, decoding, loop, checkpoints, metrics."""
