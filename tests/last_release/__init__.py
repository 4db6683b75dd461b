"""A ledger that release 0.4 made, kept as it was; README.md says how it was made."""
