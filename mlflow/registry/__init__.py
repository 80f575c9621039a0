"""The model registry's side: runs, packaging, gates, and the append-only ledger of promotions.

`python -m registry gate | promote | reject | rollback | history | compare` is the command line.
"""
