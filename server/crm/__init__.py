"""The CRM stream: every entry of the ledger, applied once and in order to the database that marketing queries.

* ``tables``: the tables, and the columns of their rows.
* ``rows``: what an entry becomes in the CRM database; pure.
* ``source``: reading the ledger and proving that what was read extends what was applied.
* ``store``: writing rows and cursor in one transaction.
* ``streamer``: the process that keeps doing it.
* ``compare``: proof that both databases tell the same, line by line.
* ``reconcile``: a quick look at the same by counts, sums and chain heads.
"""
