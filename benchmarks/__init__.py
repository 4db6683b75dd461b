"""Load generators, baselines, and the replay of real receipts."""
