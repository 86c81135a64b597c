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
    """The reply is printed as a preview without control characters; with --json it is a document."""
    result = invoke("ask", "cart-5", "add", "--payload", '"teapot"')
    assert (result.exit_code, result.stdout, result.stderr) == (0, "['teapot']\n", "")
    found = answer("ask", "cart", "add", "--payload", '"vase"')
    assert (found["run"], found["name"], found["refused"]) == ("cart-5", "add", False)
    assert found["reply"] == "['teapot', 'vase']"
    assert invoke("ask", "cart-5", "checkout").stdout == "'2 items\\x1b[31m'\n"


def test_a_refusal_is_an_error(cart, fault, invoke):
    """A refusal is one line of error, with --json a document, and the exit code is 1."""
    said = fault("ask", "cart-5", "add", "--payload", '"lion"')
    assert said == "error: cart-5 refused add: LookupError: we sell no lions\n"
    result = invoke("ask", "cart-5", "add", "--payload", '"lion"', "--json")
    assert (result.exit_code, json.loads(result.stdout)["refused"]) == (1, True)


def test_no_reply_is_loaded(cart, invoke, fault, monkeypatch):
    """The command prints previews and never unpickles a reply, even if the run replies at once."""
    cart.ask("add", "vase", key="known")

    def refuse(*_):
        pytest.fail("a reply is loaded")  # no Exception: nothing takes it for a refusal

    monkeypatch.setattr("flowdsl.engine.operations.ask._outcome", refuse)
    said = fault("ask", "cart-5", "add", "--payload", '"lion"')
    assert said == "error: cart-5 refused add: LookupError: we sell no lions\n"
    assert invoke("ask", "cart-5", "add", "--key", "known").stdout == "['vase']\n"


def test_a_key_is_asked_once(cart, invoke, fault):
    """The same key always gets the same reply, even after the end of the run."""
    first = invoke("ask", "cart-5", "checkout", "--key", "order-21").stdout
    cart.result()
    assert invoke("ask", "cart-5", "checkout", "--key", "order-21").stdout == first
    assert "has ended" in fault("ask", "cart-5", "checkout")
    assert "has ended" in fault("ask", "cart-5", "checkout", "--key", "another")


def test_no_answer_in_time(cart, fault):
    """After --timeout the command gives up; the question stays, and another command can wait for the
    reply."""
    said = fault("ask", "cart-5", "paint", "--timeout", "0.1s", "--key", "k")
    assert said.startswith("error: run cart-5 has not answered 'paint' in time; the question stays\n")
    assert said.endswith("next: flowdsl ask cart-5 paint --key k\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["crt-5", "add"], 1, "no run 'crt-5' (did you mean 'cart-5'?)"),
        (["cart-5", " "], 2, "a message's name must not be empty"),
        (["cart-5", "add", "--payload", "teapot"], 2, "'teapot' is not JSON"),
        (["cart-5", "add", "--timeout", "soon"], 2, "cannot read the duration"),
    ],
)
def test_questions_that_cannot_be_asked(arguments, code, said, cart, fault):
    """A question that cannot be asked is explained, and nothing is sent."""
    assert said in fault("ask", *arguments, code=code)
    assert cart.status == "running"


def test_in_a_terminal_of_another_process(cart, terminal):
    """A run in this process answers a question from a terminal, and finds a new tag at once."""
    asked = terminal("ask", "cart-5", "add", "--payload", '"teapot"', width=80)
    assert (asked.code, asked.text) == (0, "['teapot']\n")
    tagged = terminal("tag", "cart-5", "stage=paid", width=80)
    assert (tagged.code, tagged.text) == (0, "cart-5 has the tags stage=paid\n")
    assert cart.ask("checkout").startswith("1 items")
