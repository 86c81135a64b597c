"""What flowdsl costs, beside raw ``sqlite3`` doing the same writes: ``python -m benchmarks``."""
