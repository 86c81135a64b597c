"""The engine executes runs. It sees the storage port, never a backend."""
