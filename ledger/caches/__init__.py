"""Every cache of a book, worked out from its journal alone; `verify` and `rebuild` hold the tables against it."""
