"""One package for each protocol of other POS systems; each is a client of the API."""
