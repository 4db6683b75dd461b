"""Backtests: a draft and another version over the same stored receipts, and what would have differed.

`simulation` judges receipts one after the other as if the rules had been live, `tally` adds up what came of it,
`journal` reads receipts from the books, `run` shares the work among processes, `report` and `cli` show it.
"""
