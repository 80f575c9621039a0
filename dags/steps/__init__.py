"""The glue that joins rooms: each module is one task, run as `python -m dags.steps.<name>`."""
