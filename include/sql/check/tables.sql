-- How fresh each table is, and how its times are spelt.
SELECT source_table, newest_synced_at, position_column, position_kind, has_rows
FROM source_cursor
WHERE shop = %(shop)s AND source = %(source)s
ORDER BY array_position(ARRAY['returns', 'labels', 'exchange_items', 'transactions'], source_table)
