"""Tests of coupon codes."""
