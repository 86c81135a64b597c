"""The life of a run: asked for, acquired, kept, executed, ended; and what may be done to it later."""
