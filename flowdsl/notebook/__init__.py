"""flowdsl in notebooks: which notebook this is, and runs shown while they execute.

``%load_ext flowdsl.notebook`` shows every run of every cell that takes longer than half a second, and says
below a cell which recorded steps it changed.

>>> import flowdsl.notebook
>>> flowdsl.notebook.name("sweep")
'sweep'
"""

from flowdsl.engine.notebooks import name
from flowdsl.notebook.extension import load_ipython_extension, unload_ipython_extension
from flowdsl.notebook.watching import live

__all__ = ["live", "load_ipython_extension", "name", "unload_ipython_extension"]
