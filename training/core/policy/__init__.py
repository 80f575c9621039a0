"""Policy optimisation: a variant is a rollout, rewards, an advantage, a replay, a filter and a surrogate (`variant`).

`round` is one round from top to bottom, `trainer` plays them, and `variants` are the named ones. Nothing here knows a
system.
"""
