"""Feast: definitions, training sets, materialisation."""
