"""What finance asks of the books: closes, statements, liability, and the tables they come in.

Every report is a function ``async def report(conn, query) -> Table`` that only reads:

* ``conn`` is a connection inside a REPEATABLE READ transaction, after ``summary.bring_up_to_date``; both are the
  caller's work (``server.finance.reports`` has one table of all reports);
* ``query`` is a ``scope.Query``; its programme is set, everything else is optional;
* ``scope.open_scope(conn, query)`` says what belongs to the report: ``Scope.parameters`` are the values of $1, $2 and
  $3 in ``WHERE unit = $1 AND period < $2 AND accounting_day <= $3`` over the views ``ledger.accounting_total`` (sums
  by period, day, store, partner, issue month, kind, debit, credit) and ``ledger.accounting_posting`` (single postings).
  A query with ``as_of`` gives the same rows, and so the same bytes, for ever; reports must not tell the time;
* ``Scope.values`` values points: ``allocated(issue_month)`` is money minor units for one points minor unit, an exact
  Fraction after breakage (IFRS 15), ``full(issue_month)`` the same before it, ``breakage(issue_month)`` the share;
* ``scope.account_name`` names accounts, ``accounts.movement_of(debit, credit, kind)`` says what a posting does to the
  liability;
* ``rounding.half_up`` rounds a Fraction; ``rounding.Cumulative`` rounds parts so that they add up to the rounded whole.

Further reports, each in a module of its own:

    breakage.breakage(conn, query) -> Table                    by issue month, with the estimate and its version
    profile.age_profile(conn, query) -> Table                  what is outstanding, by issue month
    profile.expiry_profile(conn, query) -> Table               what is outstanding, by the month in which it lapses
    redemption.redemption_rate(conn, query) -> Table           by issue month
    general_ledger.general_ledger(conn, query) -> Table        a row for each day and pair of accounts
    partners.partner_settlement(conn, query) -> Table          by month and coalition partner

A wrong query raises ``scope.QueryError`` with the field at fault.
"""
