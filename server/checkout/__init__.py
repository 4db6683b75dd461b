"""The servicer of registers and kiosks, composed of directory, rules, promotions and ledger."""
