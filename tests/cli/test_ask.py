"""``flowdsl ask``: a question to a run, and its reply."""

import json

import pytest

from flowdsl import Runtime, receive, workflow


@pytest.fixture
def cart(url, folder):
    """A run that answers, in a thread of this process; what it was asked, in order."""

    @workflow(name="shop.cart", id="cart-5")
    def answers():
        items = []
        while True:
            message = receive("add", "checkout")
            if message.name == "checkout":
                return message.reply(f"{len(items)} items\x1b[31m")
            if message.payload == "lion":
                message.refuse(LookupError("we sell no lions"))
            else:
                items.append(message.payload)
                message.reply(items)

    with Runtime(url) as runtime:
        run = answers.start()
        yield run
        if runtime.query(run.id, "status") == "running":
            run.cancel()


def test_a_reply_is_printed(cart, invoke, answer):
    """The reply is shown as a preview, harmless to a terminal; with --json it is a document."""
    result = invoke("ask", "cart-5", "add", "--payload", '"teapot"')
    assert (result.exit_code, result.stdout, result.stderr) == (0, "['teapot']\n", "")
    found = answer("ask", "cart", "add", "--payload", '"vase"')
    assert (found["run"], found["name"], found["refused"]) == ("cart-5", "add", False)
    assert found["reply"] == "['teapot', 'vase']"
    assert invoke("ask", "cart-5", "checkout").stdout == "'2 items\\x1b[31m'\n"


def test_a_refusal_is_an_error(cart, fault, invoke):
    """What the run says against it is one line; with --json it is a document too. The exit code is 1."""
    said = fault("ask", "cart-5", "add", "--payload", '"lion"')
    assert said == "error: cart-5 refused add: LookupError: we sell no lions\n"
    result = invoke("ask", "cart-5", "add", "--payload", '"lion"', "--json")
    assert (result.exit_code, json.loads(result.stdout)["refused"]) == (1, True)


def test_no_reply_is_loaded(cart, invoke, fault, monkeypatch):
    """However quick a run is, the command shows previews: it never unpickles what the run has said."""
    cart.ask("add", "vase", key="known")

    def refuse(*_):
        pytest.fail("a reply is loaded")  # no Exception: nothing takes it for a refusal

    monkeypatch.setattr("flowdsl.engine.operations.ask._outcome", refuse)
    said = fault("ask", "cart-5", "add", "--payload", '"lion"')
    assert said == "error: cart-5 refused add: LookupError: we sell no lions\n"
    assert invoke("ask", "cart-5", "add", "--key", "known").stdout == "['vase']\n"


def test_a_key_is_asked_once(cart, invoke, fault):
    """The reply to a key is the same however often it is asked for, after the end as well."""
    first = invoke("ask", "cart-5", "checkout", "--key", "order-21").stdout
    cart.result()
    assert invoke("ask", "cart-5", "checkout", "--key", "order-21").stdout == first
    assert "has ended" in fault("ask", "cart-5", "checkout")
    assert "has ended" in fault("ask", "cart-5", "checkout", "--key", "another")


def test_no_answer_in_time(cart, fault):
    """A run that does not listen to the name is given up after --timeout; the question stays, and can be waited for."""
    said = fault("ask", "cart-5", "paint", "--timeout", "0.1s", "--key", "k")
    assert said.startswith("error: run cart-5 has not answered 'paint' in time; the question stays\n")
    assert said.endswith("next: flowdsl ask cart-5 paint --key k\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["crt-5", "add"], 1, "no run 'crt-5' (did you mean 'cart-5'?)"),
        (["cart-5", " "], 2, "a message's name is not empty"),
        (["cart-5", "add", "--payload", "teapot"], 2, "'teapot' is not JSON"),
        (["cart-5", "add", "--timeout", "soon"], 2, "cannot read the duration"),
    ],
)
def test_questions_that_cannot_be_asked(arguments, code, said, cart, fault):
    """A slip is explained, and nothing is sent."""
    assert said in fault("ask", *arguments, code=code)
    assert cart.status == "running"


def test_in_a_terminal_of_another_process(cart, terminal):
    """What a person types is answered by the run in this process; a tag is there at once."""
    asked = terminal("ask", "cart-5", "add", "--payload", '"teapot"', width=80)
    assert (asked.code, asked.text) == (0, "['teapot']\n")
    tagged = terminal("tag", "cart-5", "stage=paid", width=80)
    assert (tagged.code, tagged.text) == (0, "cart-5 has the tags stage=paid\n")
    assert cart.ask("checkout").startswith("1 items")
