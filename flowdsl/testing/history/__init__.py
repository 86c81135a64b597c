"""Recorded runs against today's code."""
