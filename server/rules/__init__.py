"""Programme versions: how they are published, for whom they count, and the rules that they were compiled to.

`versions` keeps what was published, `rollout` says for whom a version counts, `book` has the compiled rules in memory,
`shadow` sums up what shadows would have changed. `advice` warns of what is probably not meant, `difference` says what
changed between two files, `backtest` runs a draft over stored receipts.
"""
