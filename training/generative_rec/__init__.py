"""Generative recommendation: semantic ids, next-item training, evaluation."""
