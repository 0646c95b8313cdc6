-- A person's decision.
INSERT INTO decision (shop, action, decided_by, why, dag_id, run_id, scope, events)
VALUES (%(shop)s, %(action)s, %(who)s, %(why)s, %(dag_id)s, %(run_id)s, %(scope)s, %(events)s)
RETURNING decision_id;
