"""Everything between the code and the machine: profile, contracts, ledger, lake, quality, launchers, report."""
