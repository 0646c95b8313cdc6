"""The whole of it: a real Airflow, a real PostgreSQL, and stand-ins for Attentive."""

import pytest

pytest.register_assert_rewrite("tests.e2e.house")
