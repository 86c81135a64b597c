"""What the kernels that tests fork have imported: they and the example notebooks spend most of their time on it."""

import importlib.util
import os

# A kernel has this before anything imports matplotlib, which looks at it once.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

MODULES = (
    "ipykernel.kernelapp",
    "IPython.core.completer",
    "flowdsl.notebook",
    "matplotlib.pyplot",
    "pandas",
    "sklearn.datasets",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sklearn.neighbors",
    "sklearn.pipeline",
    "sklearn.svm",
)

for module in MODULES:
    if importlib.util.find_spec(module.partition(".")[0]) is not None:
        importlib.import_module(module)
