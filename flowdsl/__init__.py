"""flowdsl: durable execution for plain Python functions."""
