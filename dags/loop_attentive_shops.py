"""
Makes no DAG: what is wrong with the settings of any shop in include/shops.yaml is the import error of this file, so
that it is seen in Airflow's UI and takes no other shop's DAGs away.
"""

from loop_attentive.settings import load

load()
