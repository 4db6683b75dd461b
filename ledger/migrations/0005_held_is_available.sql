-- Finance counts what a checkout holds as available. The summaries that counted it apart are forgotten; the next report
-- adds them up again from the journal.
TRUNCATE ledger.finance_total, ledger.receipt_register, ledger.finance_cursor;
