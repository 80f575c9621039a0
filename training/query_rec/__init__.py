"""AIGQ: queries in the search box before anything is typed (arXiv 2603.19710). See README.md."""
