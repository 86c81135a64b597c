"""The cost of flowdsl, compared with raw ``sqlite3`` that makes the same writes: ``python -m benchmarks``."""
