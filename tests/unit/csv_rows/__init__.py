"""The reader of CSV files that people load."""
