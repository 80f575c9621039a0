"""What the systems of the next item share: its samples, who recommends, and how recommenders are compared."""
