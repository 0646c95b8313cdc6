-- Where a rule's rows, or events to be judged again, wait for their judgement; gone when the transaction ends.
CREATE TEMP TABLE candidate (
    event_id uuid, event_type text, key text, return_id text, fact_at timestamptz, occurred_at timestamptz,
    detail jsonb, is_baseline boolean, is_known boolean
) ON COMMIT DROP;
