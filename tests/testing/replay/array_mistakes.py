"""Mistakes made with numpy and pandas. They stand apart from the others: the other processes of check_replay
import the module of a workflow again and again, and pandas takes longest."""

import numpy as np
import pandas as pd
from mistakes import FILE, body

from flowdsl.testing.replay import causes as cause

body("clock_numpy_now", "", lambda: str(np.datetime64("now")))
body("clock_numpy_today", cause.CLOCK, lambda: str(np.datetime64("today")))
body("clock_pandas_now", cause.CLOCK, lambda: pd.Timestamp.now().month)
body("clock_pandas_today", cause.CLOCK, lambda: str(pd.to_datetime("today").date()))
body("chance_numpy", "", lambda: float(np.random.rand()))
body("chance_numpy_generator", "", lambda: float(np.random.default_rng().random()))
body("outside_read_csv", cause.OUTSIDE, lambda: len(pd.read_csv(FILE)))
