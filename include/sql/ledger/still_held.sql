-- How many events of a shop (of run r) wait for a person as hold h says (part of held_by_run and held_untold): not those
-- that somebody has decided about since.
LATERAL (
    SELECT count(*) AS events
    FROM event AS e
    WHERE e.shop = r.shop AND e.status = 'held' AND e.event_type = h.event_type AND e.reason = h.reason
) AS waiting
