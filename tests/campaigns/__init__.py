"""Campaigns: many seeded trials against one promise, each with an oracle outside the storage.

``python -m tests.campaigns NAME --seed 1 --count 10000`` runs one and prints one line of JSON. The oracle of each
is tested: with a planted bug (``--plant``) the campaign has to fail.
"""

import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]


def see_helpers() -> None:
    """Let this process find, as pytest does, the grammar of programs and the helpers of the tests."""
    for folder in (_TESTS, _TESTS / "laws", _TESTS / "storage"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


see_helpers()
