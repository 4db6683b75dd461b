"""`tallypoint programme`: files checked and tried, versions published, receipts explained, backtests."""
