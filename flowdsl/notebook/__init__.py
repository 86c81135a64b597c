"""flowdsl in notebooks: live progress of runs, and the name of the notebook.

``%load_ext flowdsl.notebook`` shows every run that takes longer than half a second, in every cell. If a cell
changes recorded steps, a note below the cell names them.

>>> import flowdsl.notebook
>>> flowdsl.notebook.name("sweep")
'sweep'
"""

from flowdsl.engine.notebooks import name
from flowdsl.notebook.extension import load_ipython_extension, unload_ipython_extension
from flowdsl.notebook.watching import live

__all__ = ["live", "load_ipython_extension", "name", "unload_ipython_extension"]
