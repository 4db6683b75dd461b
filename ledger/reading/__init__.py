"""What the books say: questions to the tables of the ledger, for everybody who is not the ledger."""
