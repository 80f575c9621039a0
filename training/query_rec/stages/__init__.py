"""The stages of query recommendation."""
