"""Tests of what the CRM database is told, without one."""
