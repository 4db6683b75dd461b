"""Tests of the calls of a register, without a server."""
