"""Policy optimisation: a variant is a rollout, rewards, an advantage, a replay, a filter and a surrogate (`variant`).

`trainer` runs any of them. Nothing here knows a system; `grpo` puts the plain variant together.
"""
