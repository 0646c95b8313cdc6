DROP VIEW loop_attentive.audit_run, loop_attentive.audit_attempt, loop_attentive.audit_event,
    loop_attentive.remindable_return;
DROP FUNCTION
    loop_attentive.event_key (text), loop_attentive.event_key (text, text), loop_attentive.event_key (text, text, text),
    loop_attentive.event_key (text, text, text, text), loop_attentive.key_time (timestamptz);
DROP TABLE
    loop_attentive.pace, loop_attentive.pace_setting, loop_attentive.attempt, loop_attentive.event, loop_attentive.run_rule,
    loop_attentive.run, loop_attentive.rule, loop_attentive.change, loop_attentive.mirror_waiting,
    loop_attentive.mirror_transaction, loop_attentive.mirror_episode, loop_attentive.mirror_item,
    loop_attentive.mirror_label, loop_attentive.mirror_return, loop_attentive.source_cursor,
    loop_attentive.look, loop_attentive.shop;
