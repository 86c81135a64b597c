"""flowdsl in notebooks: which notebook this is.

>>> import flowdsl.notebook
>>> flowdsl.notebook.name("sweep")
'sweep'
"""

from flowdsl.core.naming import name_notebook as name

__all__ = ["name"]
