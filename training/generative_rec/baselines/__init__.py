"""Plain recommenders that stand beside every learned model, on the same split and candidates."""
