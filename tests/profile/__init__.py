"""Tests of rlkit.profile."""
