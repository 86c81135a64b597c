-- Pending runs by what decides whether they can begin. A claim goes from lane to lane, however many runs wait in
-- each.
CREATE INDEX runs_lanes ON runs (
    length(workflow) || ':' || workflow || length(version) || ':' || version || coalesce(queue, 'default'),
    coalesce(length(partition) || ':' || partition, '-') || coalesce('/' || serial, ''),
    coalesce(not_before, 0.0), -priority, created_at, id
) WHERE status = 'pending' AND owner IS NULL AND pruned = 0;
-- What began lately, by queue: a rate looks at the runs of its own queue only.
DROP INDEX runs_claimed;
CREATE INDEX runs_begun ON runs (coalesce(queue, 'default'), claimed_at) WHERE claimed_at IS NOT NULL;
