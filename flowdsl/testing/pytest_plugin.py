"""The pytest plugin, as a part of the package. An installed package brings it by itself, and lighter:
``_flowdsl_pytest`` stands beside the package, so that it can be loaded without it.
"""

from _flowdsl_pytest import (
    _flow_default,
    flow_clock,
    flow_runtime,
    flow_storage,
    pytest_addoption,
    pytest_collect_file,
    pytest_collection_modifyitems,
    pytest_configure_node,
    pytest_sessionstart,
    pytest_unconfigure,
)

__all__ = [
    "_flow_default",
    "flow_clock",
    "flow_runtime",
    "flow_storage",
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_collection_modifyitems",
    "pytest_configure_node",
    "pytest_sessionstart",
    "pytest_unconfigure",
]
