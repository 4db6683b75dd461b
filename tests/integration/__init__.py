"""Tests of parts together with a real PostgreSQL or a real process."""
