"""Who says what the right levels are: rules, a model behind an endpoint, and people, whose word stands."""
