import pytest

for module in ("contract", "contract_lists", "contract_runs", "contract_records", "agreement", "samples"):
    pytest.register_assert_rewrite(f"flowdsl.testing.{module}")
