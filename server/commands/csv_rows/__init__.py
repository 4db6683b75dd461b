"""CSV files that people load, and what becomes of their rows: one reader for all of our commands.

A command describes its file as a `Table` of columns and hands it to `send_rows` with what makes a row a message and
what sends a batch. How the file is laid out is found by itself (`layout`, `encoding`), a bad row stops nothing
(`records`, `sending`), what a spreadsheet has done to values is undone or named (`cells`), and rows that were refused
are told and written to a file that can be mended (`report`).
"""

from server.commands.csv_rows.cells import Kind
from server.commands.csv_rows.layout import ANYHOW, Column, FileError, Layout, Reading, find_layout
from server.commands.csv_rows.report import Refusal
from server.commands.csv_rows.table import Row, Table

__all__ = [
    "ANYHOW",
    "Column",
    "FileError",
    "Kind",
    "Layout",
    "Reading",
    "Refusal",
    "Row",
    "Table",
    "find_layout",
]
