"""The pytest plugin, as a part of the package. An installed package loads it by itself, in a lighter form:
``_flowdsl_pytest`` is beside the package, so it can be loaded without the package.
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
