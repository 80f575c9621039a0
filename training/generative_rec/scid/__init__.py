"""Semantic-collaborative ids: one tokenizer for items and one for users, learnt together (Align3GR's dual SCID)."""
