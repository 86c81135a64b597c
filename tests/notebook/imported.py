"""What the kernels that tests fork have imported: they and the example notebooks spend most of their time on it."""

import importlib
import os

os.environ["MPLBACKEND"] = (
    "module://matplotlib_inline.backend_inline"  # as a kernel has it when this is imported
)

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
