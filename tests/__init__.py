"""All tests; they need real PostgreSQL servers and start them themselves."""
