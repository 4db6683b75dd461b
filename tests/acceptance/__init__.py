"""Whole stories, from the register to the CRM database, against running servers."""
