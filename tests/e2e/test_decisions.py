"""People decide in Airflow's UI: about what waits for them, and whether a shop sends at all."""

from collections import Counter
from datetime import UTC, datetime

from sandbox.airflow import run_path
from sandbox.processes import wait_until
from tests.e2e.house import DAY, FORGOTTEN_EMAIL, FORGOTTEN_PHONE, HOUR, House
from tests.e2e.story import story

CREATED = "Loop Return Created"


@story
def test_what_waits_for_a_person_is_decided_in_the_ui_and_sent_at_once(house: House) -> None:
    merchant = house.merchants["decided"]
    merchant.put_returns(3, HOUR)
    found = merchant.scheduled(merchant.hourly)
    merchant.succeeds(found)
    assert merchant.statuses() == Counter(held=3)

    # Somebody ends the run that asks instead of answering, so the next one asks.
    [ended] = merchant.airflow.runs(merchant.resolve)
    merchant.airflow.ask("PATCH", run_path(ended), json={"state": "failed"})
    run = merchant.trigger(merchant.hourly)
    merchant.succeeds(run)
    [decided] = [asks for asks in merchant.airflow.runs(merchant.resolve) if asks["state"] == "running"]
    of_this_run = {"of_run": found["dag_run_id"], "events": ["Loop Return Created"]}
    nothing = merchant.trigger(merchant.resolve, action="discard", states=["held"], why="a thought", **of_this_run)
    asked = merchant.answers(nothing, "approve", "Change nothing")
    assert "**Discard 3 events**" in asked
    assert "| Loop Return Created | held | more than " in asked
    merchant.succeeds(nothing)
    assert merchant.statuses() == Counter(held=3)

    # The run itself has asked.
    asked = merchant.answers(decided, "approve", "Approve")
    assert "**Send 3 events**" in asked
    merchant.succeeds(decided)
    assert merchant.statuses() == Counter(accepted=3)
    merchant.each_exactly_once()
    merchant.adds_up()
    [(action, who, why, run_id, events)] = merchant.rows(
        "SELECT action, decided_by, why, run_id, events FROM audit_decision WHERE shop = %s"
    )
    assert (action, run_id, events) == ("send", decided["dag_run_id"], 3)
    assert why == f"held by run {run['dag_run_id']} of {merchant.hourly}"
    assert who.lower() == "anonymous" or who == "admin", who

    nobody = merchant.trigger(merchant.resolve, action="send", states=["held"], why="once more")
    merchant.succeeds(nobody)
    assert merchant.task(nobody, "approve")["state"] == "skipped"

    merchant.succeeds(merchant.trigger(merchant.stop, action="stop", why="a wrong text"))
    merchant.put_returns(1, HOUR)
    [theirs] = merchant.put_returns(1, HOUR, customer_phone=FORGOTTEN_PHONE, customer_email=FORGOTTEN_EMAIL)
    merchant.succeeds(stopped := merchant.trigger(merchant.hourly))
    assert merchant.task(stopped, "ask")["state"] == "skipped"
    assert merchant.statuses() == Counter(accepted=3, pending=2)
    assert any("a wrong text" in line for line in merchant.airflow.log(merchant.task(stopped, "plan")))

    # Somebody says no, by one of their contacts, while their message waits.
    said = house.forget(merchant, FORGOTTEN_EMAIL)
    assert "1 contacts given, 1 more found" in said
    assert FORGOTTEN_EMAIL not in said
    assert merchant.statuses() == Counter(accepted=3, pending=1, suppressed=1)

    merchant.succeeds(merchant.trigger(merchant.stop, action="go on", why="mended"))
    assert merchant.statuses() == Counter(accepted=4, suppressed=1)

    # What happens to them later reaches nobody, though the source goes on telling who they are.
    merchant.warehouse.execute(
        "UPDATE loop.returns SET state = 'closed', updated_at = now(), synced_at = now() WHERE return_id = %s", [theirs]
    )
    merchant.put_returns(1, HOUR, customer_phone=FORGOTTEN_PHONE, customer_email=None)
    merchant.succeeds(merchant.trigger(merchant.hourly))
    assert merchant.outcomes() == {
        ("Return Created", "accepted", None): 4,
        ("Return Created", "suppressed", "opted out"): 2,
        ("Return Status Updated", "suppressed", "opted out"): 1,
    }
    assert merchant.rows(
        "SELECT count(*) FROM mirror_return WHERE shop = %s AND opted_out "
        "AND num_nulls(customer_phone, customer_email, order_name, status_page_url) = 4"
    ) == [(2,)]
    merchant.each_exactly_once()
    merchant.adds_up()


@story
def test_a_range_of_days_is_previewed_approved_and_sent(house: House) -> None:
    merchant = house.merchants["ranged"]
    merchant.put_returns(2, HOUR)
    merchant.put_returns(1, 50 * HOUR)
    today = datetime.now(UTC)
    days = {"from": str((today - 3 * DAY).date()), "to": str((today + DAY).date())}

    previewed = merchant.trigger(merchant.backfill, events=[CREATED], **days)
    merchant.succeeds(previewed)
    assert merchant.task(previewed, "approve")["state"] == "skipped"
    assert merchant.statuses() == Counter()
    assert merchant.rows("SELECT verdict, sum(events)::int FROM audit_plan WHERE shop = %s GROUP BY 1 ORDER BY 1") == [
        ("late", 1),
        ("new", 2),
    ]

    declined = merchant.trigger(merchant.backfill, mode="send", events=[CREATED], **days)
    merchant.when_asked(declined, "approve")
    plans = "SELECT plan_id FROM plan WHERE shop = %s ORDER BY plan_id"
    shown = merchant.rows(plans)
    merchant.clear(declined, task_ids=["preview"])

    def has_run_again() -> bool:
        preview = merchant.task(declined, "preview")
        return (preview["try_number"], preview["state"]) == (2, "success")

    wait_until(has_run_again, "preview has run again", seconds=300)
    assert merchant.rows(plans) == shown, "somebody looks at this plan, and would approve another"
    merchant.answers(declined, "approve", "Change nothing")
    merchant.succeeds(declined)
    assert merchant.statuses() == Counter()

    sent = merchant.trigger(merchant.backfill, mode="send", events=[CREATED], **days)
    asked = merchant.answers(sent, "approve", "Approve")
    assert "**2 events would be sent**" in asked
    assert "Examples" in asked
    merchant.succeeds(sent)
    assert merchant.statuses() == Counter(accepted=2, expired=1)
    merchant.each_exactly_once()
    merchant.adds_up()
    assert merchant.rows("SELECT action, events FROM audit_decision WHERE shop = %s") == [("backfill", 2)]

    again = merchant.trigger(merchant.backfill, mode="send", events=[CREATED], **days)
    merchant.succeeds(again)
    assert merchant.task(again, "approve")["state"] == "skipped", "nothing is left to ask about"
