"""Reconciliation, without a database."""
