"""What tells of a user's next item: each signal is a module that scores any pair of a history and an item."""
