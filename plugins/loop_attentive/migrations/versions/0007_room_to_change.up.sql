-- Room in each page for the next version of its rows. A change that touches no indexed column, and whose new version finds
-- room beside the old one, leaves every index as it is: a lease, an answer to an attempt, a label's status.
ALTER TABLE loop_attentive.event SET (fillfactor = 70);
ALTER TABLE loop_attentive.attempt SET (fillfactor = 70);
ALTER TABLE loop_attentive.mirror_label SET (fillfactor = 70);
