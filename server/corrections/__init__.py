"""Corrections of what members have: adjustments by hand, transfers, and what comes back to merged members."""
