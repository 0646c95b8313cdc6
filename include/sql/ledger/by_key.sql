-- A sender names the rows it means, or walks an index in its order: no other plan pays, whatever the statistics say.
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_sort = off;
SET enable_material = off;
SET plan_cache_mode = force_generic_plan;
