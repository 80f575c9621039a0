"""The stages of the toy system."""
