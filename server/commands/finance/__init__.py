"""`tallypoint finance`: reports, closes, exports and proofs."""
