"""The books of the loyalty programme: entries, postings, lots, the committer, verification and rebuilding."""
