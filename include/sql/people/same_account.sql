-- The shops whose people these shops' opt-outs hold for: themselves, and those of the same Attentive account.
SELECT DISTINCT also.shop
FROM shop AS own
JOIN shop AS also ON also.account = own.account
WHERE own.shop = ANY (%(shops)s::text[])
