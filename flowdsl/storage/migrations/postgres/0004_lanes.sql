-- Pending runs by what decides whether they can begin. A claim goes from lane to lane, however many runs wait in
-- each. The names are hashed: together they may be too long for an index.
CREATE INDEX runs_lanes ON {schema}.runs (
    (md5(length(workflow) || ':' || workflow || length(version) || ':' || version || coalesce(queue, 'default'))::uuid),
    (md5(coalesce(length(partition) || ':' || partition, '-') || coalesce('/' || serial, ''))::uuid),
    coalesce(not_before, 0), (-priority), created_at, id
) WHERE status = 'pending' AND owner IS NULL AND NOT pruned;
-- What began lately, by queue: a rate looks at the runs of its own queue only.
DROP INDEX {schema}.runs_claimed;
CREATE INDEX runs_begun ON {schema}.runs (coalesce(queue, 'default'), claimed_at) WHERE claimed_at IS NOT NULL;
-- Whether any pending run has a serial key: a claim asks for it.
CREATE INDEX runs_serial ON {schema}.runs (serial) WHERE status = 'pending' AND serial <> '';
