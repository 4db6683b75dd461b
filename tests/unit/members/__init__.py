"""Tests of what members are recognised by, and of files of them."""
