"""A system for a test."""
