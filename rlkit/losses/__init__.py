"""Losses: pure functions of embeddings."""
