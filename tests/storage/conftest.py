import pytest

for module in ("contract", "keeping", "lists", "messages", "records", "runs", "agreement", "samples"):
    pytest.register_assert_rewrite(f"flowdsl.testing.storage.{module}")
