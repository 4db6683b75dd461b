"""How entries come into the books: one transaction a batch, under a fence."""
