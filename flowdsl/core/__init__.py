"""The pure centre: records, keys, journal, retry. No clock, no randomness, no I/O, no threads."""
