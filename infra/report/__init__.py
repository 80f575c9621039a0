"""The analysts' report: one static page over the marts, with no server, no credentials and no network."""
