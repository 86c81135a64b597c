"""flowdsl with other tools: :mod:`flowdsl.contrib.otel` for traces, :mod:`flowdsl.contrib.logs` for logs,
:mod:`flowdsl.contrib.dask` for clusters."""
