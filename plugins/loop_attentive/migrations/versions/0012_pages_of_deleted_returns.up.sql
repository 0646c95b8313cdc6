-- Pages that show where a package goes are held as long as the return's contact: of a deleted return nobody is known.
UPDATE loop_attentive.mirror_label AS l
SET tracking_url = NULL, label_url = NULL
FROM loop_attentive.mirror_return AS r
WHERE
    r.is_deleted AND l.shop = r.shop AND l.return_id = r.return_id
    AND num_nonnulls(l.tracking_url, l.label_url) > 0;

UPDATE loop_attentive.mirror_waiting AS w
SET row_data = w.row_data - ARRAY['tracking_url', 'label_url']
FROM loop_attentive.mirror_return AS r
WHERE r.is_deleted AND w.source_table = 'labels' AND w.shop = r.shop AND w.return_id = r.return_id;
