"""Which run is meant."""

from flowdsl import Runtime
from flowdsl.core.records import Run


def test_ids_by_their_beginning(shop, answer, invoke, fault):
    """The beginning of an id or key is accepted if only one run has it; a whole id always is."""
    first, second = shop.sell("apples"), shop.fail("pears")
    shop.sell("x", id="order-1")
    shop.sell("y", id="order-10")
    assert answer("show", first.id[:12])["id"] == first.id
    assert answer("show", second.key[:6])["id"] == second.id
    assert answer("show", "order-1")["id"] == "order-1"
    for text in ("checkout", "order-", first.id[0]):
        assert f"{text!r} could be any of" in fault("show", text)
    assert fault("show", "nothing") == "error: no run 'nothing'\nnext: flowdsl runs\n"
    assert fault("show", "ordr-1").startswith("error: no run 'ordr-1' (did you mean 'order-1'?)\n")
    assert invoke("show", "").exit_code == 1


def test_a_parent_is_meant_before_its_children(shop, url, answer):
    """The beginning of an id that a parent and its child share names the parent."""
    shop.sell("x", id="a")
    with Runtime(url) as runtime:
        child = runtime.storage.get_run("a")
        assert child is not None
        runtime.storage.set_run(Run(id="parent", workflow="w", key="1"))
        runtime.storage.set_run(Run(id="parent/1234", workflow="w", key="2", parent="parent"))
    assert answer("show", "par")["id"] == "parent"
    assert answer("show", "parent/")["id"] == "parent/1234"
