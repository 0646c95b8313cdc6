"""
### What the warehouse tells, before anything is sent

**Trigger** it after connecting a warehouse or changing the shop's settings. It looks at the source as a run does and
keeps nothing: its log names each missing table and column, what the connector cannot tell, how fresh each table is, how
many returns have a usable phone or e-mail, times that cannot be right, and how many events of each type the last 7 days
made. `make check` tells the same.

It fails, with what to mend, where a look would fail; that Attentive does not take the key is a warning, for it keeps
nothing from being judged.
"""

from airflow.sdk import DAG  # noqa: F401  (Airflow looks for the word in a file before it reads it)

from loop_attentive.check_operators import CheckOperator
from loop_attentive.pipeline import LONGEST_LOOK, by_hand
from loop_attentive.settings import sound

for shop in sound().values():
    with by_hand("loop_attentive_check", shop=shop, params={}, doc=__doc__):
        CheckOperator(task_id="check", shop=shop.name, retries=0, execution_timeout=LONGEST_LOOK)
