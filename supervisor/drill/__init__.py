"""Faults on purpose: what a user's job survives is better known before the weekend."""
