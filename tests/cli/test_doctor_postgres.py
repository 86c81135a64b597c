"""``flowdsl doctor`` on PostgreSQL."""

import json

from postgres_server import postgres_url

from flowdsl.storage import open_storage


def test_all_is_well_on_postgresql(invoke):
    """The report checks version, clock, LISTEN, long snapshots, fillfactor and bloat."""
    url = postgres_url()
    open_storage(url).close()
    result = invoke("doctor", "--storage", url, "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 0
    assert {"postgresql", "clock", "listen", "snapshots", "fillfactor", "bloat"} <= set(checks)
    for name in ("postgresql", "clock", "listen", "fillfactor", "bloat"):
        assert checks[name]["state"] == "ok", checks[name]


def test_a_server_that_is_not_there(invoke, tmp_path):
    """A server that does not answer is a problem, explained in words."""
    result = invoke("doctor", "--storage", f"postgresql:///x?host={tmp_path}&patience=0", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 1
    assert checks["postgresql"]["state"] == "problem"
