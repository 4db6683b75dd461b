"""Finance's questions, for people: reports on a terminal, in files and pictures, and for the general ledger."""
