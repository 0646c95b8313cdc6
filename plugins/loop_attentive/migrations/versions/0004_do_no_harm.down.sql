DROP VIEW loop_attentive.audit_plan;
DROP TABLE loop_attentive.plan_event;
DROP TABLE loop_attentive.plan_count;
DROP TABLE loop_attentive.plan;

DROP VIEW loop_attentive.opted_out;
ALTER TABLE loop_attentive.mirror_return DROP COLUMN opted_out;
ALTER TABLE loop_attentive.shop DROP COLUMN cleaned_of, DROP COLUMN account;
DROP TABLE loop_attentive.opt_out;

DROP TABLE loop_attentive.hold;

DROP VIEW loop_attentive.audit_purged;
DROP TABLE loop_attentive.purged_key;
DROP FUNCTION loop_attentive.key_hash (text, text, text);
DROP TABLE loop_attentive.purged;
DROP VIEW loop_attentive.audit_decision;
DROP TABLE loop_attentive.proposed;
DROP TABLE loop_attentive.decision_event;
DROP TABLE loop_attentive.decision;
ALTER TABLE loop_attentive.event DROP COLUMN own_time, DROP COLUMN email_hash, DROP COLUMN phone_hash;
DROP TABLE loop_attentive.hash_key;
