"""The contract that every storage keeps, as tests that a backend inherits."""
