"""Training stages in torch and transformers; imports nothing of ours but itself."""
