"""Closed forms and bounds, in the notation of the paper each comes from."""
