"""Encoders and heads in flax.linen; the only folder that knows flax."""
