-- Where a rule's rows, or events to be judged again, wait for their judgement; gone when the transaction ends, or,
-- where several rules share one that will be rolled back, when the next one is judged.
DROP TABLE IF EXISTS candidate, judged;

CREATE TEMP TABLE candidate (
    event_id uuid, event_type text, key text, return_id text, fact_at timestamptz, occurred_at timestamptz,
    detail jsonb, is_baseline boolean, is_known boolean, own_time boolean, is_released boolean
) ON COMMIT DROP;
