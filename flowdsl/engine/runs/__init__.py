"""The life of a run: it is asked for, acquired, kept, executed and ended; and what can be done to it
later."""
