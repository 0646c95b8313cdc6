"""What the sandbox's scheduler imports as it starts: the tasks that it forks then have it, and start much sooner.

Nothing of this may import Airflow, which reads this while it is being imported itself.
"""

import loop_attentive.qualify
import loop_attentive.source  # noqa: F401
