-- When the next run of a workflow is due: an idle worker asks for it.
CREATE INDEX runs_due ON {schema}.runs (workflow, coalesce(not_before, 0), coalesce(queue, 'default'))
    WHERE status = 'pending' AND owner IS NULL AND NOT pruned;
