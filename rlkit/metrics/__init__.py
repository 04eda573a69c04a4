"""Metrics: pure functions of embeddings."""
