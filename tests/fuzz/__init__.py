"""Calls with whatever anybody could send: none may be answered INTERNAL, and nothing may break what is stored."""
