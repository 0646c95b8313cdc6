-- Tables with rows of which the planner knows nothing yet: the first look's, until something analyses them.
SELECT relname
FROM pg_class
WHERE
    relnamespace = 'loop_attentive'::regnamespace
    AND relname IN ('mirror_return', 'mirror_label', 'mirror_item', 'mirror_episode', 'mirror_transaction', 'change')
    AND reltuples <= 0
    AND pg_relation_size(oid) > 0;
