"""Loaders of real formats, synthetic pairs with known ground truth, and views."""
