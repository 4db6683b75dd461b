"""Replay of real grocery receipts through the public API, with a report that proves what came of them."""
