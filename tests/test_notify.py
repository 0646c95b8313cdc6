"""Who is told of held events: once, with numbers and names only, and a run is none the worse when it cannot be said."""

from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk import Connection

from loop_attentive import notify, qualify, runs
from loop_attentive.catalogue import BY_NAME
from loop_attentive.errors import NeedsMending
from tests.floor import HOUR, T0, Floor
from tests.webhook import Receiver

CREATED = "Loop Return Created"


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def hook(receiver: Receiver) -> Iterator[notify.Webhook]:
    with receiver.running() as port:
        yield notify.webhook(connection(host=f"http://127.0.0.1:{port}/services", password="T0/B0/secret"))


def connection(**fields: Any) -> Connection:
    return Connection(conn_id="slack", conn_type="http", **fields)


@pytest.fixture
def run(floor: Floor) -> runs.Run:
    """A run of now that has held three events of one type."""
    floor.start()
    floor.settings(max_events_per_run=2)
    for number in range(3):
        floor.ret(str(number), created_at=T0 + HOUR)
    look = floor.look(T0 + 2 * HOUR)
    run = runs.start(floor.conn, dag_id="loop_attentive_hourly", run_id="manual__1", shop="default", look=look)
    qualify.qualify(floor.conn, floor.shop, BY_NAME[CREATED], run, now=look.as_of)
    return run


def test_a_run_is_told_of_once_in_numbers_and_names(
    floor: Floor, run: runs.Run, hook: notify.Webhook, receiver: Receiver
) -> None:
    assert notify.tell(floor.conn, floor.shop, hook.post) == 1
    assert notify.tell(floor.conn, floor.shop, hook.post) == 0
    [message] = receiver.messages
    assert receiver.paths == ["/services/T0/B0/secret"]
    assert message.splitlines()[:2] == [
        "Held and not sent in shop default: 3 (DAG loop_attentive_hourly, run manual__1).",
        "- 3 Loop Return Created: more than max_events_per_run (bound 2)",
    ]
    assert "Approve or discard them under Required Actions of DAG loop_attentive_resolve; or trigger it" in message
    assert "with state held for a part of them" in message
    assert "4155552671" not in message


def test_the_message_leads_to_the_question(
    floor: Floor, run: runs.Run, hook: notify.Webhook, receiver: Receiver
) -> None:
    notify.tell(floor.conn, floor.shop.model_copy(update={"name": "acme"}), hook.post, "https://airflow.example.com/")
    assert receiver.messages == []
    notify.tell(floor.conn, floor.shop, hook.post, "https://airflow.example.com/")
    assert "https://airflow.example.com/dags/loop_attentive_resolve/required_actions;" in receiver.messages[0]


def test_what_is_held_when_the_run_is_cleared_is_told_of_and_no_more(
    floor: Floor, run: runs.Run, hook: notify.Webhook, receiver: Receiver
) -> None:
    notify.tell(floor.conn, floor.shop, hook.post)
    qualify.qualify(floor.conn, floor.shop, BY_NAME[CREATED], run, now=T0 + 2 * HOUR)
    assert notify.tell(floor.conn, floor.shop, hook.post) == 0
    floor.ret("9", created_at=T0 + HOUR)
    look = floor.look(T0 + 3 * HOUR)
    again = runs.start(floor.conn, dag_id="loop_attentive_hourly", run_id="manual__1", shop="default", look=look)
    qualify.qualify(floor.conn, floor.shop, BY_NAME[CREATED], again, now=look.as_of)
    assert notify.tell(floor.conn, floor.shop, hook.post) == 1
    assert receiver.messages[1].startswith("Held and not sent in shop default: 1 ")


@pytest.mark.parametrize("decided", [2, 3])
def test_what_somebody_has_decided_about_meanwhile_is_told_of_no_more(
    floor: Floor, run: runs.Run, hook: notify.Webhook, receiver: Receiver, decided: int
) -> None:
    floor.conn.execute("UPDATE event SET status = 'accepted' WHERE return_id < %s", (str(decided),))
    held = notify.held_by(floor.conn, run.run_key)
    assert sum(one.events for one in held) == 3 - decided
    assert notify.waits(held) == (decided < 3)
    assert notify.tell(floor.conn, floor.shop, hook.post) == (decided < 3)
    assert notify.tell(floor.conn, floor.shop, hook.post) == 0
    assert [message.split(" (")[0] for message in receiver.messages] == ["Held and not sent in shop default: 1"] * (
        decided < 3
    )


def test_what_could_not_be_told_is_told_by_the_next_run(
    floor: Floor, run: runs.Run, hook: notify.Webhook, receiver: Receiver
) -> None:
    for status in (500, 302):
        receiver.status = status
        with pytest.raises(notify.NotTold, match=rf"^it answered HTTP {status}$"):
            notify.tell(floor.conn, floor.shop, hook.post)
    assert set(receiver.paths) == {"/services/T0/B0/secret"}, "no redirect is followed"
    receiver.status = 200
    assert notify.tell(floor.conn, floor.shop, hook.post) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/secret", "https://hooks..example.com/secret"])
def test_a_webhook_that_is_away_is_named_by_nothing_but_its_failure(floor: Floor, run: runs.Run, url: str) -> None:
    gone = notify.webhook(connection(host=url))
    with pytest.raises(notify.NotTold, match=r"^it could not be reached \(\w+\)$"):
        notify.tell(floor.conn, floor.shop, gone.post)


def test_another_shop_is_not_told_of(floor: Floor, run: runs.Run, hook: notify.Webhook) -> None:
    assert notify.tell(floor.conn, floor.shop.model_copy(update={"name": "acme"}), hook.post) == 0


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "https://hooks.slack.com/services/T/B/X"}, "https://hooks.slack.com/services/T/B/X"),
        ({"host": "https://hooks.slack.com/services/", "password": "/T/B/X"}, "https://hooks.slack.com/services/T/B/X"),
        ({"host": "hooks.slack.com", "password": "T/B/X"}, "https://hooks.slack.com/T/B/X"),
        ({"host": "chat.example.com", "schema": "https", "port": 8443}, "https://chat.example.com:8443"),
        ({"host": "localhost", "port": 8080, "password": "x"}, "http://localhost:8080/x"),
        ({"host": "http://chat/x", "extra": '{"plain_http": true}'}, "http://chat/x"),
    ],
)
def test_where_messages_go(fields: dict[str, Any], url: str) -> None:
    hook = notify.webhook(connection(**fields))
    assert hook.url == url
    assert "hook" not in repr(hook).lower().replace("webhook(", ""), "its URL is a secret"


@pytest.mark.parametrize("host", ["http://chat.example.com/x", "ftp://chat.example.com", "https://", "", "https://h:x"])
def test_where_no_message_goes(host: str) -> None:
    with pytest.raises(NeedsMending, match=r"[Cc]onnection slack"):
        notify.webhook(connection(host=host))
