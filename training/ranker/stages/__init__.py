"""The stages of the ranker."""
