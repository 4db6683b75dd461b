"""Seeded random histories against a small model."""
