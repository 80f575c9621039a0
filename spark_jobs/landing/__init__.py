"""Landing files as rows of text: found, read and counted record by record, without Spark."""
