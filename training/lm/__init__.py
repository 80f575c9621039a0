"""Measurements of the text side of `training.core`, which may not know what it is compared with."""
