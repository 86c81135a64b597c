"""The verbs: one module each, all of one shape. How to add one: ``docs/internals.md``."""
