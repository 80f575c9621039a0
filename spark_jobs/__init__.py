"""PySpark jobs: one module per table it publishes."""
