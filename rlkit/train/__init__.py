"""Runs: a compiled loop around pure functions, its records, checkpoints and command line."""
