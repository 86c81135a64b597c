"""Exceptions as bytes: taken apart, stored, and put together again as the same type."""
