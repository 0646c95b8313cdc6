"""The settings of the shops: include/shops.yaml, read and checked whenever Airflow reads the DAGs.

Imports neither Airflow nor pandas, because that happens again and again.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import phonenumbers
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from loop_attentive import contacts
from loop_attentive.catalogue import BY_NAME, INCLUDE
from loop_attentive.errors import NeedsMending

SHOPS_FILE = INCLUDE / "shops.yaml"
SOURCES = INCLUDE / "sql" / "sources"
BESIDE = INCLUDE / "sql" / "beside"
OWN = INCLUDE / "sql" / "shops"
"""SELECTs of a merchant's own, in a folder named for the shop: <table>.sql replaces, <table>.extend.sql extends."""

DEFAULT_SHOP = "default"

FORBIDDEN_IN_TYPES = "\"'(){}[]\\|,"
"""Characters that Attentive does not take in the type of an event."""

NO_PLACES = {"localtime", "posixrules", "Factory", "posix", "right"}
"""Files and folders beside the time zones that are none: whether they are there, and with what, differs by machine."""

OTHERWISE_IN_POSTGRESQL = {"CET", "EET", "MET", "WET"}
"""Zones with summer time, whose names PostgreSQL takes for abbreviations of a fixed offset."""

RULES_LOOK_BACK_DAYS = 31
"""How far back the rules read the mirror, which must hold more than that."""

RETENTION_MARGIN_DAYS = RULES_LOOK_BACK_DAYS
"""By so much the ledger remembers longer than the mirror: what a change that the mirror still holds led to is there."""


def _matching(pattern: str, allowed: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(allowed)
        return text

    return AfterValidator(check)


ShopName = Annotated[str, _matching("[a-z0-9_]{1,64}", "should be 1 to 64 of a-z, 0-9 and _")]
ConnectionId = Annotated[
    str, _matching("[A-Za-z0-9_.-]+", "should be the id of an Airflow connection: letters, digits, _ . and -")
]
SchemaName = Annotated[
    str,
    _matching(
        r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?",
        "should be a plain name of letters, digits and _, or two of them: database.schema",
    ),
]

TableName = Annotated[str, _matching("[A-Za-z_][A-Za-z0-9_]*", "should be plain names of letters, digits and _")]


def _connector(name: str) -> str:
    connectors = sorted(folder.name for folder in SOURCES.iterdir() if folder.is_dir())
    if name not in connectors:
        raise ValueError(f"should be one of the folders in include/sql/sources: {', '.join(connectors)}")
    return name


def _event_prefix(prefix: str) -> str:
    if not prefix.isprintable() or set(prefix) & set(FORBIDDEN_IN_TYPES):
        raise ValueError(
            f"should hold none of {' '.join(FORBIDDEN_IN_TYPES)}, which Attentive does not take in the type of an event"
        )
    return prefix


def _phone_region(region: str) -> str:
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("should be a two-letter country code in capitals, such as US or GB")
    return region


def _time_zone(name: str) -> str:
    try:
        if name.split("/")[0] in NO_PLACES or name in OTHERWISE_IN_POSTGRESQL:
            raise ValueError
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("should be an IANA time zone by a place, such as America/New_York, or UTC") from None
    return name


def _moment(value: object) -> datetime | None:
    """An aware time in UTC. One without a zone is no moment: guessing its zone could text a day's customers again."""
    allowed = "should be a time with its zone, such as 2026-01-31T09:00:00Z or 2026-01-31T09:00:00-05:00"
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(allowed) from None


def _list(value: object) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError("should be a list, such as [a, b]")
    return list(value)


def _event_names(value: object) -> frozenset[str]:
    names = _list(value)
    if not all(isinstance(name, str) and name in BY_NAME for name in names):
        raise ValueError(f"should be a list of names out of: {', '.join(BY_NAME)}")
    return frozenset(names)


def _usual_retention(shop: dict[str, Any]) -> int:
    """A year and a month, or as long as the mirror asks for."""
    return max(400, shop.get("mirror_days", 0) + RETENTION_MARGIN_DAYS)


def _usual_connector(shop: dict[str, Any]) -> str:
    """What the shop's own sync lands is read as what it is."""
    return "dlt" if shop.get("loop_api") else "canonical"


def _beside(system: str) -> AfterValidator:
    def check(name: str) -> str:
        known = sorted(folder.name for folder in (BESIDE / system).iterdir() if folder.is_dir())
        if name not in known:
            raise ValueError(f"should be one of the folders in include/sql/beside/{system}: {', '.join(known)}")
        return name

    return AfterValidator(check)


class _Tables(BaseModel):
    """Where other tables of the warehouse are that belong to the shop."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tables: SchemaName = Field(alias="schema")


class Shopify(_Tables):
    """Shopify's tables: phones and stock. connector: who brought them."""

    connector: Annotated[str, _beside("shopify")] = "fivetran"


class Stripe(_Tables):
    """Stripe's tables: payments and refunds. return_id_in: the key of a charge's metadata that names the return.

    match_by_email: whether a payment that nothing else links may be that of the one return whose customer, upsell and
    time agree with it.
    """

    connector: Annotated[str, _beside("stripe")] = "fivetran"
    return_id_in: Annotated[str, Field(min_length=1)] | None = None
    match_by_email: Literal["yes", "no"] = "no"


class ConnectorLog(_Tables):
    """The connector's own record of its syncs. connection: what it calls the one that brings Loop's tables."""

    connection: Annotated[str, Field(min_length=1)]


class Shop(BaseModel):
    """One Loop account with its Attentive account, as an entry of shops.yaml describes it.

    enabled_at is in UTC. max_events_per_run is one number that each event type is held to by itself: a flood is
    noticed by its size, whichever type it is of, and one number is what a person can choose without counting first.
    notify: a connection to a webhook that is told of held events and of failed runs. loop_api: a connection to Loop's
    own API, from which loop_attentive_sync fills the warehouse as dlt does. tables: what the warehouse calls a table of
    the connector.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: ShopName
    mode: Literal["live", "shadow"] = "live"
    loop_api: ConnectionId | None = None
    connector: Annotated[str, AfterValidator(_connector)] = Field(default_factory=_usual_connector)
    source_schema: SchemaName = Field(default="loop", alias="schema")
    tables: dict[TableName, TableName] = Field(default_factory=dict)
    shopify: Shopify | None = None
    stripe: Stripe | None = None
    connector_log: ConnectorLog | None = None
    warehouse: ConnectionId = "loop_warehouse"
    attentive: ConnectionId = "attentive"
    event_prefix: Annotated[str, AfterValidator(_event_prefix)] = ""
    phone_region: Annotated[str, AfterValidator(_phone_region)] = "US"
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    enabled_at: Annotated[datetime | None, BeforeValidator(_moment)] = None
    requests_per_second: Annotated[int, Field(gt=0, le=10_000)] = 150
    freshness_hours: Annotated[float, Field(gt=0, le=8_760, allow_inf_nan=False)] | None = 26
    instant_exchange_window_days: Annotated[int, Field(gt=0, le=365)] | None = None
    mirror_days: Annotated[int, Field(gt=RULES_LOOK_BACK_DAYS, le=3_650, validate_default=True)] = 120
    retention_days: Annotated[int, Field(gt=0, le=36_500)] = Field(default_factory=_usual_retention)
    events_off: Annotated[frozenset[str], BeforeValidator(_event_names)] = frozenset()
    only_recipients: frozenset[str] = frozenset()
    max_events_per_run: Annotated[int, Field(ge=0)] | None = None
    max_per_person_per_day: Annotated[int, Field(gt=0)] = 6
    notify: ConnectionId | None = None

    @field_validator("connector")
    @classmethod
    def _check_connector_of_sync(cls, connector: str, info: ValidationInfo) -> str:
        if info.data.get("loop_api") and connector != "dlt":
            raise ValueError("should be dlt, or left out, where loop_api is given: its sync lands its tables as dlt")
        return connector

    @field_validator("source_schema")
    @classmethod
    def _check_schema_of_sync(cls, schema: str, info: ValidationInfo) -> str:
        if info.data.get("loop_api") and not re.fullmatch(r"_?[a-z0-9]+(_[a-z0-9]+)*", schema):
            raise ValueError("should be of small letters, digits and single _, as dlt has it, where loop_api is given")
        return schema

    @field_validator("tables")
    @classmethod
    def _leave_the_tables_of_the_sync(cls, tables: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if tables and info.data.get("loop_api"):
            raise ValueError("should be left out where loop_api is given: its sync names its tables itself")
        return tables

    @field_validator("tables")
    @classmethod
    def _name_tables_of_the_connector(cls, tables: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        folder = SOURCES / info.data.get("connector", "canonical")
        selects = "".join(file.read_text(encoding="utf-8") for file in folder.glob("*.sql"))
        known = sorted(set(re.findall(r"\bloop\.(\w+)", selects)))
        for table in tables:
            if table not in known and "connector" in info.data:  # absent: wrong itself
                raise ValueError(_unknown(table, known).replace("key", "table", 1))
        return tables

    @field_validator("mirror_days")
    @classmethod
    def _outlast_the_window(cls, days: int, info: ValidationInfo) -> int:
        window = info.data.get("instant_exchange_window_days")
        if window and days < window + 2:
            raise ValueError(
                f"should be at least {window + 2}, two days more than instant_exchange_window_days ({window})"
            )
        return days

    @field_validator("retention_days")
    @classmethod
    def _outlive_the_mirror(cls, days: int, info: ValidationInfo) -> int:
        mirror_days = info.data.get("mirror_days", 0)  # absent: wrong itself
        if days < mirror_days + RETENTION_MARGIN_DAYS:
            raise ValueError(
                f"should be at least {mirror_days + RETENTION_MARGIN_DAYS}, "
                f"{RETENTION_MARGIN_DAYS} days more than mirror_days ({mirror_days})"
            )
        return days

    @field_validator("only_recipients", mode="before")
    @classmethod
    def _normalise_recipients(cls, value: object, info: ValidationInfo) -> frozenset[str]:
        recipients = [_recipient(entry, info.data.get("phone_region", "US")) for entry in _list(value)]
        wrong = [str(place) for place, recipient in enumerate(recipients, start=1) if recipient is None]
        if wrong:
            raise ValueError(f"entry {', '.join(wrong)} is no valid phone (in quotes) or e-mail address")
        return frozenset(recipient for recipient in recipients if recipient)

    @property
    def zone(self) -> ZoneInfo:
        """The zone of the source's times that have none, and of the dates in forms."""
        return ZoneInfo(self.time_zone)

    @property
    def dag_suffix(self) -> str:
        """What the ids of this shop's DAGs end in."""
        return "" if self.name == DEFAULT_SHOP else f"__{self.name}"

    @property
    def resolve_dag(self) -> str:
        """The id of the DAG in which people decide about this shop's events."""
        return f"loop_attentive_resolve{self.dag_suffix}"


KEYS = tuple(field.alias or name for name, field in Shop.model_fields.items() if name != "name")
"""What may stand under a shop in shops.yaml."""


def load(path: Path = SHOPS_FILE) -> dict[str, Shop]:
    """The shops by name, in the order of the file.

    Raises NeedsMending, with every problem of the file in its one line.
    """
    shops, problems = _read(path)
    if problems:
        raise NeedsMending(f"Mend {path}: {'; '.join(problems)}.")
    return shops


def sound(path: Path = SHOPS_FILE) -> dict[str, Shop]:
    """As load, without the shops whose settings are wrong: no other should stand still for that.

    Raises NeedsMending when the file as a whole cannot be read.
    """
    return _read(path)[0]


def shop(name: str, path: Path = SHOPS_FILE) -> Shop:
    """One shop; raises NeedsMending when its settings are wrong, or there is none of this name."""
    shops = sound(path)
    if name not in shops:
        load(path)
        raise NeedsMending(f"There is no shop {name}: {path.parent.name}/{path.name} has {', '.join(shops)}.")
    return shops[name]


def _read(path: Path) -> tuple[dict[str, Shop], list[str]]:
    """The shops whose settings are right, and what is wrong with the others."""
    shops: dict[str, Shop] = {}
    problems: list[str] = []
    for name, values in _entries(path).items():
        try:
            shops[name] = _shop(name, values)
        except _ProblemsError as found:
            problems += [f"shop {name}: {problem}" for problem in found.args]
    for look_for in (_unread_files, _filled_twice, _sent_twice):
        for name, problem in list(look_for(shops)):
            problems.append(f"shop {name}: {problem}")
            shops.pop(name, None)
    return shops, problems


def _unread_files(shops: Mapping[str, Shop]) -> Iterator[tuple[str, str]]:
    """Shops that have SELECTs of their own by a name that stands for nothing, each with what to do."""
    tables = sorted(file.stem for file in (SOURCES / "canonical").glob("*.sql"))
    known = {f"{table}{kind}" for table in tables for kind in (".sql", ".extend.sql")}
    for name in shops:
        for file in sorted((OWN / name).glob("*.sql")):
            if file.name not in known:
                named = f"<table>.sql or <table>.extend.sql, of {', '.join(tables)}"
                yield name, f"include/sql/shops/{name}/{file.name} would not be read: name it {named}"


def _filled_twice(shops: Mapping[str, Shop]) -> Iterator[tuple[str, str]]:
    """Shops whose sync fills what another's does, each with what to do."""
    filled: dict[tuple[str, str], str] = {}
    for name, one in shops.items():
        if one.loop_api and (first := filled.setdefault((one.warehouse, one.source_schema), name)) != name:
            yield name, f"schema: the sync of shop {first} fills {one.source_schema}: give another"


def _sent_twice(shops: Mapping[str, Shop]) -> Iterator[tuple[str, str]]:
    """Shops that would send what another sends, each with what to do: to the ledger their events are not the same."""
    for place, (name, shop) in enumerate(shops.items()):
        same = [other for other in list(shops.values())[:place] if _reads_and_sends(other) == _reads_and_sends(shop)]
        sent_twice = [other for other in same if BY_NAME.keys() - shop.events_off - other.events_off]
        if sent_twice and _reads_and_sends(shop):
            what = f"shop {sent_twice[0].name} sends what {shop.source_schema} holds already, to the same Attentive"
            mend = "give another schema, mode: shadow, or events_off"
            yield name, f"schema: {what}, so that customers would get it twice: {mend}"


def _reads_and_sends(shop: Shop) -> tuple[object, ...] | None:
    """What a shop sends to whom; None where nobody can tell, or it sends nothing."""
    if shop.mode != "live" or (OWN / shop.name / "returns.sql").exists():
        return None
    source = shop.warehouse, shop.connector, shop.source_schema, frozenset(shop.tables.items())
    return *source, shop.attentive, shop.event_prefix


class _ProblemsError(Exception):
    """What is wrong with one shop: a text each."""


def _shop(name: object, values: object) -> Shop:
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise _ProblemsError("its settings must be keys with values, or {}")
    problems = [_unknown(key, KEYS) for key in values if key not in KEYS]
    try:
        shop = Shop.model_validate({"name": name} | {key: values[key] for key in KEYS if key in values})
    except ValidationError as error:
        problems += [_in_words(detail) for detail in error.errors(include_url=False) if detail["type"] not in NO_WORDS]
    if problems:
        raise _ProblemsError(*problems)
    return shop


NO_WORDS = frozenset({"default_factory_not_called"})
"""What follows from something else that is wrong, and is told already."""


def _in_words(detail: Mapping[str, Any]) -> str:
    """One of pydantic's findings as `key: what it should be`, without the value that was given."""
    key = ".".join(map(str, detail["loc"]))
    match detail["type"]:
        case "value_error":
            return f"{key}: {detail['ctx']['error']}"
        case "extra_forbidden":
            return f"{key}: unknown key"
        case "missing":
            return f"{key}: must be given"
        case _:
            return f"{key}: {detail['msg'].removeprefix('Input ')}"


def _unknown(key: object, known: Iterable[str]) -> str:
    near = get_close_matches(str(key), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"unknown key {key} ({hint})"


def _recipient(entry: object, region: str) -> str | None:
    if not isinstance(entry, str):
        return None  # YAML reads an unquoted +1... as a number, and its + is lost
    text = entry.strip()
    address = contacts.email(text)
    return address.lower() if address else contacts.phone(text, region)


def _entries(path: Path) -> dict[str, Any]:
    """What stands below `shops`."""
    example = "write `shops: {default: {}}` for one shop with the default settings"
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (it is a SafeLoader)
    except OSError as error:
        raise NeedsMending(
            f"Cannot read {path} ({error.strerror}): create it, or mend its permissions; {example}."
        ) from None
    except UnicodeDecodeError:
        raise NeedsMending(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise NeedsMending(f"{path}{line} is not valid YAML: {error.problem or error.context}.") from None
    except yaml.YAMLError:
        raise NeedsMending(f"{path} is not valid YAML: it holds a character that YAML does not allow.") from None
    if not isinstance(document, dict) or not isinstance(document.get("shops"), dict) or not document["shops"]:
        raise NeedsMending(f"{path} names no shops: {example}.")
    for key in document:
        if key != "shops":
            raise NeedsMending(f"Mend {path}: {_unknown(key, ['shops'])}.")
    return document["shops"]


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once, and NO is Norway.

    Words such as no or on, and times, stay text: no setting is a boolean, and YAML itself would stumble over an
    impossible date without a word about which key it is.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
