"""The stages of the semantic judge."""
