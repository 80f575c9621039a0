"""The ranker: signals of what a user may take next, and a listwise mixture of them, calibrated and explained."""
