"""``flowdsl tag``: give a run tags."""

import pytest


def test_tags_are_added_and_replaced(shop, invoke, answer):
    """Named tags are added or replaced, others stay, and the run is found by the new ones at once."""
    shop.sell("x", id="a")
    result = invoke("tag", "a", "env=test", "reviewed=yes")
    assert (result.exit_code, result.stdout) == (0, "a has the tags env=test, region=eu, reviewed=yes\n")
    assert [run["id"] for run in answer("runs", "--tag", "reviewed")] == ["a"]
    assert answer("tag", "a", "env=prod=2")["tags"] == {"env": "prod=2", "region": "eu", "reviewed": "yes"}


@pytest.mark.parametrize("text", ["urgent", "=x", ""])
def test_what_is_no_tag(text, shop, fault):
    """A tag without a name or a value is refused."""
    shop.sell("x", id="a")
    assert f"a tag is NAME=VALUE, not {text!r}" in fault("tag", "a", text, code=2)
