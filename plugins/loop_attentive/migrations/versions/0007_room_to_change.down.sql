ALTER TABLE loop_attentive.mirror_label RESET (fillfactor);
ALTER TABLE loop_attentive.attempt RESET (fillfactor);
ALTER TABLE loop_attentive.event RESET (fillfactor);
