"""How tables reach people: on a terminal, in CSV, Parquet and XLSX files, as pictures; and progress bars."""
