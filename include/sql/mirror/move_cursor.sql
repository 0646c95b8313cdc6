-- How far this look got in one table: where the next one starts.
INSERT INTO source_cursor (
    shop, source_table, source, position_column, position, position_kind, newest_synced_at, has_rows, looked_at,
    looked_until, tells_shipped, told, told_by, time_zone, horizon
)
VALUES (
    %(shop)s, %(source_table)s, %(source)s, %(position_column)s, %(position)s, %(position_kind)s,
    %(newest_synced_at)s, %(has_rows)s, %(looked_at)s, %(looked_until)s, %(tells_shipped)s, %(told)s, %(told_by)s,
    %(time_zone)s, %(horizon)s
)
ON CONFLICT (shop, source_table) DO UPDATE SET
    source = excluded.source,
    position_column = excluded.position_column,
    position = excluded.position,
    position_kind = excluded.position_kind,
    newest_synced_at = excluded.newest_synced_at,
    has_rows = excluded.has_rows,
    looked_at = excluded.looked_at,
    looked_until = excluded.looked_until,
    tells_shipped = excluded.tells_shipped,
    told = excluded.told,
    told_by = excluded.told_by,
    time_zone = excluded.time_zone,
    horizon = excluded.horizon;
