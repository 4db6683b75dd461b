"""Reconciliation: what the registers report against what the ledger has, and the breaks that people work through.

`compare` finds breaks and `carry_over` carries them from run to run; both are pure functions over the plain data of
`model`. `files` and `breaks` keep that data in the database, `csv_file` reads it from a store's files, and `cli` is
the command.
"""
