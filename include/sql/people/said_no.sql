-- Whose phone or e-mail a shop knows to have said no, and whether that very contact was named by a person.
SELECT person_hash, bool_or(given) FROM opted_out WHERE shop = %(shop)s GROUP BY person_hash
