"""Rows of the table."""

CASES = ()
