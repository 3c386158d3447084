"""Frozen encoders, stacked over layers, and the folders that they live in."""
