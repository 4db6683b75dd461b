"""What an entry is and does: plain data and pure functions, without a database."""
