-- What time it is by the ledger's clock: a question that takes no time tells more of a clock than one with much to do.
SELECT coalesce(%(now)s::timestamptz, clock_timestamp())
