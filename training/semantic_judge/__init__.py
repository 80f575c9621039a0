"""S-GRec's semantic judge: what an item is to a user, by aspect, and how much each aspect counts for that user."""
