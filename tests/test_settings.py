"""Settings: what may stand in shops.yaml, and what a person reads who got it wrong."""

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from pydantic import ValidationError

from loop_attentive import settings
from loop_attentive.catalogue import CATALOGUE
from loop_attentive.errors import NeedsMending
from loop_attentive.settings import KEYS, SHOPS_FILE, Shop, load

WriteFile = Callable[[str], Path]
ReadShop = Callable[..., Shop]
Complain = Callable[..., str]

DEFAULTS: dict[str, Any] = {
    "mode": "live",
    "loop_api": None,
    "connector": "canonical",
    "source_schema": "loop",
    "tables": {},
    "shopify": None,
    "stripe": None,
    "connector_log": None,
    "warehouse": "loop_warehouse",
    "attentive": "attentive",
    "event_prefix": "",
    "phone_region": "US",
    "time_zone": "UTC",
    "enabled_at": None,
    "requests_per_second": 150,
    "freshness_hours": 26,
    "instant_exchange_window_days": None,
    "mirror_days": 120,
    "retention_days": 400,
    "events_off": frozenset(),
    "only_recipients": frozenset(),
    "max_events_per_run": None,
    "max_per_person_per_day": 6,
    "notify": None,
}


@pytest.fixture
def shops_file(tmp_path: Path) -> WriteFile:
    """Writes text as a settings file."""

    def write(text: str) -> Path:
        path = tmp_path / "shops.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def shop(shops_file: WriteFile) -> ReadShop:
    """The default shop with the given lines of YAML."""
    return lambda *lines: load(shops_file("shops:\n  default:\n" + "".join(f"    {line}\n" for line in lines)))[
        "default"
    ]


@pytest.fixture
def complaint(shop: ReadShop) -> Complain:
    """What is said of the default shop with the given lines of YAML."""

    def message(*lines: str) -> str:
        with pytest.raises(NeedsMending) as caught:
            shop(*lines)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


@pytest.mark.parametrize(
    "text", ["shops: {default: {}}", "shops: {default: }", "shops:\n  default:\n    # mode: live\n"]
)
def test_an_empty_shop_is_a_whole_settings_file(shops_file: WriteFile, text: str) -> None:
    shops = load(shops_file(text))
    assert {name: shop.model_dump() for name, shop in shops.items()} == {"default": {"name": "default"} | DEFAULTS}


def test_the_file_of_the_project_is_the_default_shop() -> None:
    assert load() == {"default": Shop(name="default")}


def test_the_file_of_the_project_shows_every_key_in_a_form_that_works(shops_file: WriteFile) -> None:
    text = SHOPS_FILE.read_text(encoding="utf-8")
    assert re.findall(r"^    # (\w+): ", text, re.MULTILINE) == list(KEYS)
    together = [key for key in KEYS if key != "loop_api"]  # which lets no other connector than its own be named
    uncommented = re.sub(rf"^    # (?=(?:{'|'.join(together)}): )", "    ", text, flags=re.MULTILINE)
    shown = load(shops_file(uncommented))["default"].model_dump()
    examples = {
        "tables",
        "shopify",
        "stripe",
        "connector_log",
        "enabled_at",
        "instant_exchange_window_days",
        "max_events_per_run",
        "notify",
    }
    assert {key: value for key, value in shown.items() if key not in examples} == {"name": "default"} | {
        key: value for key, value in DEFAULTS.items() if key not in examples
    }
    assert all(shown[key] for key in examples)
    synced = load(shops_file(re.sub(r"^    # (?=loop_api: )", "    ", text, flags=re.MULTILINE)))["default"]
    assert (synced.loop_api, synced.connector) == ("loop_api", "dlt")


def test_every_key_can_be_set(shop: ReadShop) -> None:
    made = shop(
        "mode: shadow",
        "loop_api: loop_of_acme",
        "connector: dlt",
        "schema: loop_2",
        "shopify: {schema: fivetran_shopify}",
        "stripe: {schema: RAW.stripe, connector: airbyte, return_id_in: loop_return_id, match_by_email: yes}",
        "connector_log: {schema: fivetran_log, connection: loop_returns}",
        "warehouse: snow-flake.1",
        "attentive: attentive_test",
        'event_prefix: "Acme: "',
        "phone_region: NO",
        "time_zone: America/New_York",
        "enabled_at: 2026-01-31T09:00:00-05:00",
        "requests_per_second: 20",
        "freshness_hours: null",
        "instant_exchange_window_days: 14",
        "mirror_days: 32",
        "retention_days: 63",
        "events_off: [Loop Label Updated]",
        'only_recipients: ["+16789998212", Ann@Example.COM]',
        "max_events_per_run: 0",
        "max_per_person_per_day: 1",
        "notify: slack_loop",
    )
    assert made.model_dump() == {
        "name": "default",
        "mode": "shadow",
        "loop_api": "loop_of_acme",
        "connector": "dlt",
        "source_schema": "loop_2",
        "tables": {},
        "shopify": {"tables": "fivetran_shopify", "connector": "fivetran"},
        "stripe": {
            "tables": "RAW.stripe",
            "connector": "airbyte",
            "return_id_in": "loop_return_id",
            "match_by_email": "yes",
        },
        "connector_log": {"tables": "fivetran_log", "connection": "loop_returns"},
        "warehouse": "snow-flake.1",
        "attentive": "attentive_test",
        "event_prefix": "Acme: ",
        "phone_region": "NO",
        "time_zone": "America/New_York",
        "enabled_at": datetime(2026, 1, 31, 14, tzinfo=UTC),
        "requests_per_second": 20,
        "freshness_hours": None,
        "instant_exchange_window_days": 14,
        "mirror_days": 32,
        "retention_days": 63,
        "events_off": {"Loop Label Updated"},
        "only_recipients": {"+16789998212", "ann@example.com"},
        "max_events_per_run": 0,
        "max_per_person_per_day": 1,
        "notify": "slack_loop",
    }
    assert made.zone == ZoneInfo("America/New_York")


def test_shops_keep_their_order_and_name_their_dags(shops_file: WriteFile) -> None:
    shops = load(shops_file("shops: {default: {}, eu_2: {mode: shadow}, acme: {schema: acme}}"))
    assert [(name, shop.dag_suffix) for name, shop in shops.items()] == [
        ("default", ""),
        ("eu_2", "__eu_2"),
        ("acme", "__acme"),
    ]


def test_a_shop_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Shop(name="default").mode = "shadow"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mode: Live", "mode: should be 'live' or 'shadow'"),
        ("connector: fivetan", "connector: should be one of the folders in include/sql/sources: "),
        (
            "loop_api: loop_api\n    connector: fivetran",
            "connector: should be dlt, or left out, where loop_api is given",
        ),
        ("connector: ../sources/canonical", "connector: should be one of the folders"),
        ("schema: 'loop; drop table x'", "schema: should be a plain name"),
        ("schema: a.b.c", "schema: should be a plain name"),
        ('schema: "loop\\n"', "schema: should be a plain name"),
        ("schema: löop", "schema: should be a plain name"),
        ("schema: 3", "schema: should be a valid string"),
        (
            "loop_api: loop_api\n    tables: {returns: loop_returns}",
            "tables: should be left out where loop_api is given",
        ),
        ("loop_api: loop_api\n    schema: analytics.loop", "schema: should be of small letters, digits and single _"),
        ("loop_api: loop_api\n    schema: LoopSynced", "schema: should be of small letters, digits and single _"),
        ("loop_api: loop_api\n    schema: loop__synced", "schema: should be of small letters, digits and single _"),
        ("warehouse:", "warehouse: should be a valid string"),
        ("warehouse: my warehouse", "warehouse: should be the id of an Airflow connection"),
        ("phone_region: UK", "phone_region: should be a two-letter country code"),
        ("phone_region: us", "phone_region: should be a two-letter country code"),
        ("time_zone: New_York", "time_zone: should be an IANA time zone"),
        ("time_zone: ../../etc/passwd", "time_zone: should be an IANA time zone"),
        ("time_zone: America", "time_zone: should be an IANA time zone"),
        ("time_zone: ''", "time_zone: should be an IANA time zone"),
        (
            "time_zone: localtime",
            "time_zone: should be an IANA time zone by a place, such as America/New_York, or UTC",
        ),
        ("time_zone: CET", "time_zone: should be an IANA time zone by a place"),
        ("time_zone: posixrules", "time_zone: should be an IANA time zone"),
        ("time_zone: Factory", "time_zone: should be an IANA time zone"),
        ("time_zone: posix/Europe/Berlin", "time_zone: should be an IANA time zone"),
        ("time_zone: right/Europe/Berlin", "time_zone: should be an IANA time zone"),
        ("enabled_at: 2026-01-31T09:00:00", "enabled_at: should be a time with its zone, such as 2026-01-31T09:00:00Z"),
        ("enabled_at: 2026-01-31", "enabled_at: should be a time with its zone"),
        ("enabled_at: 2026-02-30T00:00:00Z", "enabled_at: should be a time with its zone"),
        ("enabled_at: 0001-01-01T00:00:00+14:00", "enabled_at: should be a time with its zone"),
        ("enabled_at: 1769850000", "enabled_at: should be a time with its zone"),
        ("requests_per_second: 0", "requests_per_second: should be greater than 0"),
        ("requests_per_second: 10001", "requests_per_second: should be less than or equal to 10000"),
        ("requests_per_second: true", "requests_per_second: should be a valid integer"),
        ("requests_per_second: '150'", "requests_per_second: should be a valid integer"),
        ("requests_per_second: 1.5", "requests_per_second: should be a valid integer"),
        ("freshness_hours: 0", "freshness_hours: should be greater than 0"),
        ("freshness_hours: .nan", "freshness_hours: should be"),
        ("freshness_hours: .inf", "freshness_hours: should be a finite number"),
        ("freshness_hours: yes", "freshness_hours: should be a valid number"),
        ("instant_exchange_window_days: 0", "instant_exchange_window_days: should be greater than 0"),
        ("mirror_days: 31", "mirror_days: should be greater than 31"),
        (
            "instant_exchange_window_days: 119",
            "mirror_days: should be at least 121, two days more than instant_exchange_",
        ),
        ("retention_days: 150", "retention_days: should be at least 151, 31 days more than mirror_days (120)"),
        ("events_off: [Loop Label Changed]", "events_off: should be a list of names out of: Loop Return Created, "),
        ("events_off: Loop Label Updated", "events_off: should be a list"),
        ("events_off: [[Loop Label Updated]]", "events_off: should be a list of names"),
        ("only_recipients: ann@example.com", "only_recipients: should be a list"),
        ("only_recipients: {a: b}", "only_recipients: entry 1 is no valid phone"),
        ("only_recipients: [+16789998212]", "only_recipients: entry 1 is no valid phone (in quotes) or e-mail address"),
        ("max_events_per_run: -1", "max_events_per_run: should be greater than or equal to 0"),
        ("max_events_per_run: {Loop Label Updated: 3}", "max_events_per_run: should be a valid integer"),
        ("max_per_person_per_day: 0", "max_per_person_per_day: should be greater than 0"),
        ("mdoe: live", "unknown key mdoe (did you mean mode?)"),
        ("request_per_second: 3", "unknown key request_per_second (did you mean requests_per_second?)"),
        ("source_schema: loop", "unknown key source_schema"),
        ("tables: {retruns: x}", "tables: unknown table retruns (did you mean returns?)"),
        ("shopify: {schema: a, conector: b}", "shopify.conector: unknown key"),
        ("shopify: {}", "shopify.schema: must be given"),
        ("colour: red", "unknown key colour (known are mode, loop_api, connector, schema, "),
        ("name: acme", "unknown key name"),
        ("7: x", "unknown key 7"),
    ],
)
def test_a_wrong_value_is_told_with_file_shop_and_key(complaint: Complain, line: str, says: str) -> None:
    message = complaint(line)
    assert f"shops.yaml: shop default: {says}" in message
    assert message.count("shop default: ") == 1


@pytest.mark.parametrize("character", "\"'(){}[]\\|,\n\t\0")
def test_a_prefix_obeys_attentives_rule_for_types(character: str) -> None:
    with pytest.raises(ValidationError, match="should hold none of"):
        Shop(name="default", event_prefix=f"Acme{character}")


def test_the_message_lists_every_event(complaint: Complain) -> None:
    message = complaint("events_off: [All]")
    assert all(event.name in message for event in CATALOGUE)


@pytest.mark.parametrize(("mirror_days", "kept"), [(120, 400), (369, 400), (3_650, 3_681)])
def test_the_ledger_remembers_for_longer_than_the_mirror_unasked(mirror_days: int, kept: int) -> None:
    assert Shop(name="default", mirror_days=mirror_days).retention_days == kept


def test_all_problems_are_told_in_one_line(complaint: Complain) -> None:
    message = complaint("mode: off", "mirror_days: 3", "colour: red")
    assert message.count("shop default: ") == 3
    assert all(key in message for key in ("mode: ", "mirror_days: ", "colour "))


def test_each_problem_names_its_shop(shops_file: WriteFile) -> None:
    with pytest.raises(NeedsMending, match=r"shop default: mode: .*; shop eu: mirror_days: "):
        load(shops_file("shops: {default: {mode: x}, eu: {mirror_days: 3}}"))


def test_one_shops_problem_is_no_other_shops(shops_file: WriteFile) -> None:
    path = shops_file("shops: {default: {}, outlet: {mode: off}}")
    assert list(settings.sound(path)) == ["default"]
    assert settings.shop("default", path).name == "default"
    with pytest.raises(NeedsMending, match=r"shop outlet: mode: should be "):
        settings.shop("outlet", path)
    with pytest.raises(NeedsMending, match=r"shop outlet: mode: should be "):
        load(path)
    with pytest.raises(NeedsMending, match=r"There is no shop closed: .* has default\.$"):
        settings.shop("closed", shops_file("shops: {default: {}}"))


@pytest.mark.parametrize(
    "differs",
    ["connector: airbyte", "mode: shadow", "schema: eu", "warehouse: eu", "attentive: eu", 'event_prefix: "EU "'],
)
def test_two_shops_do_not_send_the_same(shops_file: WriteFile, differs: str) -> None:
    """Their events are not the same to the ledger: everybody would be texted twice."""
    with pytest.raises(NeedsMending, match=r"shop eu: schema: shop default sends what loop holds already, .* twice"):
        load(shops_file("shops: {default: {}, eu: {}}"))
    assert list(load(shops_file(f"shops: {{default: {{}}, eu: {{{differs}}}}}"))) == ["default", "eu"]


def test_two_shops_may_part_what_one_source_tells(
    shops_file: WriteFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    updated, *others = sorted(event.name for event in CATALOGUE)
    parted = {"default": {"events_off": [updated]}, "eu": {"events_off": others}}
    assert list(load(shops_file(yaml.safe_dump({"shops": parted})))) == ["default", "eu"]
    monkeypatch.setattr(settings, "OWN", tmp_path)
    (tmp_path / "eu").mkdir()
    (tmp_path / "eu" / "returns.sql").touch()  # which reads a part of them, say
    assert list(load(shops_file("shops: {default: {}, eu: {}}"))) == ["default", "eu"]


def test_a_select_that_would_not_be_read(
    shops_file: WriteFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "OWN", tmp_path)
    (tmp_path / "eu").mkdir()
    (tmp_path / "eu" / "return.sql").touch()
    path = shops_file("shops: {default: {}, eu: {schema: eu}}")
    assert list(settings.sound(path)) == ["default"]
    with pytest.raises(NeedsMending, match=r"shop eu: include/sql/shops/eu/return\.sql would not be read: name it "):
        load(path)


def test_two_shops_syncs_do_not_fill_one_schema(shops_file: WriteFile) -> None:
    path = shops_file("shops: {default: {loop_api: a}, outlet: {loop_api: b}, third: {loop_api: c, schema: third}}")
    assert list(settings.sound(path)) == ["default", "third"]
    with pytest.raises(NeedsMending, match=r"shop outlet: schema: the sync of shop default fills loop: give another"):
        load(path)


def test_a_wrong_recipient_is_told_by_its_place_only(complaint: Complain) -> None:
    message = complaint('only_recipients: ["+16789998212", "+1 555 123", "ann@", ben@example.com]')
    assert "entry 2, 3 is no valid" in message
    assert "555" not in message
    assert "ann" not in message


def test_recipients_are_read_in_the_shops_region(shop: ReadShop) -> None:
    assert shop("phone_region: GB", 'only_recipients: ["07400 123456"]').only_recipients == {"+447400123456"}


def test_a_wrong_region_does_not_hide_a_right_recipient(complaint: Complain) -> None:
    assert "only_recipients" not in complaint("phone_region: UK", "only_recipients: [ann@example.com]")


@pytest.mark.parametrize("name", ["Acme", "a-b", "a.b", "''", "ä", "a b", "12", "x" * 65])
def test_a_shops_name_fits_into_the_id_of_a_dag(shops_file: WriteFile, name: str) -> None:
    with pytest.raises(NeedsMending, match=r"shop .*: name: should be"):
        load(shops_file(f"shops: {{{name}: {{}}}}"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no shops: write `shops: {default: {}}`"),
        ("# nothing\n", "names no shops"),
        ("default: {}", "names no shops"),
        ("shops:", "names no shops"),
        ("shops: {}", "names no shops"),
        ("shops: [default]", "names no shops"),
        ("- shops", "names no shops"),
        ("shops: {default: {}}\nshop: {}", "unknown key shop (did you mean shops?)"),
        ("shops: {default: live}", "shop default: its settings must be keys with values"),
        ("shops: {default: [mode]}", "shop default: its settings must be keys with values"),
        ("shops: {default: {mode: live, mode: shadow}}", "line 1 is not valid YAML: the key mode stands twice"),
        ("shops:\n  default: {}\n  default: {}", "line 3 is not valid YAML: the key default stands twice"),
        ("shops:\n  default: {mode: live", "is not valid YAML"),
        ("shops:\n\tdefault: {}", "line 2 is not valid YAML"),
        ("shops: !!python/object:os.system {}", "is not valid YAML"),
        ("shops: {default: {mode: \x07}}", "is not valid YAML: it holds a character"),
        ("shops: {[a]: {}}", "is not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_read_as_settings(shops_file: WriteFile, text: str, says: str) -> None:
    with pytest.raises(NeedsMending) as caught:
        load(shops_file(text))
    assert says in str(caught.value)
    assert "shops.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NeedsMending, match=r"Cannot read .*nowhere.yaml \(No such file or directory\): create it"):
        load(tmp_path / "nowhere.yaml")


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "shops.yaml"
    path.write_bytes("shops: {default: {event_prefix: Zoë}}".encode("latin-1"))
    with pytest.raises(NeedsMending, match="save it as UTF-8"):
        load(path)


def test_shops_can_share_settings_by_yamls_own_means(shops_file: WriteFile) -> None:
    shops = load(
        shops_file("shops:\n  default: &same {mode: shadow, mirror_days: 40}\n  eu: {<<: *same, mirror_days: 50}\n")
    )
    assert (shops["eu"].mode, shops["eu"].mirror_days) == ("shadow", 50)


def test_yaml_in_general_is_left_as_it_was() -> None:
    assert yaml.safe_load("a: yes") == {"a": True}


def test_reading_settings_loads_neither_airflow_nor_pandas() -> None:
    code = (
        "import sys, loop_attentive.settings as s; s.load(); print({'airflow', 'pandas', 'numpy'} & set(sys.modules))"
    )
    plugins = Path(__file__).parents[1] / "plugins"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(plugins)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
