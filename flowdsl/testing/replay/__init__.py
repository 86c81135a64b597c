"""``check_replay``: can a workflow be continued from wherever it dies?"""
