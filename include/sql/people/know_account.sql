-- Under which Attentive account the shops of one connection are; written only when it is another than before.
UPDATE shop SET account = %(account)s WHERE shop = ANY (%(shops)s::text[]) AND account IS DISTINCT FROM %(account)s
