"""Slow, obvious float64 versions of the losses, family by family, written from the papers.

Nothing here may import from rlkit.
"""
