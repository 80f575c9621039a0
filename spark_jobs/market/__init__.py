"""The market: people whose true preference is known, on a real catalogue, shown lists of exactly known chances."""
