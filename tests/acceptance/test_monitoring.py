"""The files in docs/monitoring: a real Prometheus scrapes a real server under load, and every picture has its data."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
import pytest
from prometheus_client import REGISTRY
from ruamel.yaml import YAML
from tallypoint.v1 import checkout_pb2, store_pb2, store_pb2_grpc

from server.crm import streamer
from server.measuring import metrics
from tests.support.server_process import RunningServer
from tests.support.till import Till, card, new_card, open_till, set_up_store

DOCS: Final = Path(__file__).parents[2] / "docs"
FOLDER: Final = DOCS / "monitoring"
DASHBOARD: Final = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PANELS: Final = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES: Final = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
VARIABLES: Final = {"$__rate_interval": "10s", "$__range": "1m", "$instance": ".*", "$store_group": ".*"}
"""What Grafana would put in their places."""
GROUP: Final = "hypermarket"
OF_THE_GROUP: Final = ("a store's group", f'rate(tallypoint_call_seconds_count{{store_group="{GROUP}"}}[10s]) > 0')
RARE: Final = {"Wait for the fence"}
"""Panels without a number while nothing of the kind happens: here each book has one writer."""
PATIENCE_SECONDS: Final = 60
SERIES_SUFFIX: Final = re.compile(r"_(bucket|count|sum)$")

PROMETHEUS: Final = shutil.which("prometheus") or ""
PROMTOOL: Final = shutil.which("promtool") or ""

needs_prometheus = pytest.mark.skipif(
    not (PROMETHEUS and PROMTOOL),
    reason="there is no prometheus here; on Debian: apt-get install --no-install-recommends prometheus",
)


def yaml_of(name: str) -> Any:
    """Read a file of the folder."""
    return YAML(typ="safe").load(FOLDER / name)


def rules_of(name: str) -> list[dict[str, Any]]:
    """Return the rules of a file."""
    return [rule for group in yaml_of(name)["groups"] for rule in group["rules"]]


ALERTS: Final = rules_of("alerts.yml")


# --- the files alone ----------------------------------------------------------------------------------------------


@needs_prometheus
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("check", "config", "prometheus.yml"), id="config"),
        pytest.param(("check", "rules", "recording.yml", "alerts.yml"), id="rules"),
        pytest.param(("test", "rules", "alerts_test.yml"), id="what each alert sees"),
    ],
)
def test_promtool_accepts(command: tuple[str, ...], tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # it makes databases, quicker where the other tests do
    done = subprocess.run(
        [PROMTOOL, *command], cwd=FOLDER, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_explained() -> None:
    """Somebody is woken by its name alone, and looks it up."""
    names = [alert["alert"] for alert in ALERTS]
    tests, chapters = (FOLDER / "alerts_test.yml").read_text(), (DOCS / "operations.md").read_text()
    assert [name for name in names if f'alertname="{name}", alertstate="firing"' not in tests] == []
    assert [name for name in names if f"### {name}\n" not in chapters] == []
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"page", "ticket"}, alert
        assert alert["annotations"].keys() == {"summary", "description"}, alert


def test_rules_name_metrics_that_exist() -> None:
    """A mistyped name would never be equal to anything, and its alert silent for ever."""
    assert metrics.CALL_SECONDS is not None  # these modules register them all
    assert streamer.REFUSED is not None
    known = {SERIES_SUFFIX.sub("", name) for name in REGISTRY._names_to_collectors}
    recorded = {rule["record"] for rule in rules_of("recording.yml")}
    for rule in (*ALERTS, *rules_of("recording.yml")):
        used = re.findall(r"[\w:]*tallypoint_[\w:]+", rule["expr"])
        unknown = {name for name in used if name not in recorded and SERIES_SUFFIX.sub("", name) not in known}
        assert unknown == set(), rule


def test_panels_say_what_they_show() -> None:
    """A unit and a sentence each; no two have one title."""
    for panel in PANELS:
        unit = panel["fieldConfig"]["defaults"].get("unit") or panel["options"]["yAxis"]["unit"]
        assert unit, panel["title"]
        assert panel["description"].endswith((".", ")")), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


# --- a running Prometheus -----------------------------------------------------------------------------------------


class Prometheus:
    """A running Prometheus."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **arguments: str) -> Any:
        """Ask its API; what it does not understand raises with its words."""
        query = urllib.parse.urlencode(arguments)
        try:
            with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()}") from None

    def values(self, expression: str) -> list[float]:
        """Evaluate an expression now; numbers only, so without those that are none (0 divided by 0)."""
        found = [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]
        return [value for value in found if not math.isnan(value)]


@pytest.fixture(scope="module")
def prometheus(tallypoint: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the folder's configuration; only it looks every half second, at the tests' server."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml_of("prometheus.yml")
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [tallypoint.metrics_address]
    YAML().dump(config, folder / "prometheus.yml")
    command = [
        *(PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
        *("--web.listen-address=127.0.0.1:0", "--log.level=warn"),
    ]
    log = folder / "log"
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield Prometheus(_until(lambda: _listening_address(process), f"Prometheus listens; see {log}"))
        finally:
            process.terminate()


def _listening_address(process: subprocess.Popen[bytes]) -> str | None:
    assert process.poll() is None, "it has ended"
    for connection in psutil.Process(process.pid).net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN:
            return f"{connection.laddr.ip}:{connection.laddr.port}"
    return None


def _until(found: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_SECONDS
    while not (value := found()):
        assert time.monotonic() < end, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.1)
    return value


@asynccontextmanager
async def trade(server: RunningServer) -> AsyncIterator[None]:
    """Let a store of a group work until the end of the block: calls, streams, refusals, members of all books."""
    store_id = f"s{uuid.uuid4().hex[:8]}"
    key = await set_up_store(server, store_id)
    async with grpc.aio.insecure_channel(server.backoffice_address) as office:
        store = store_pb2.Store(store_id=store_id, name=store_id, time_zone="Europe/Kyiv", groups=[GROUP])
        await store_pb2_grpc.StoreServiceStub(office).PutStore(
            store_pb2.PutStoreRequest(store=store), metadata=(("authorization", f"Bearer {server.keys['admin']}"),)
        )
    async with open_till(server, store_id, key) as till:
        cards = [(await till.enrol()).cards[0].card_number for _ in range(6)]
        work = [asyncio.create_task(_sell(till, number)) for number in cards]
        try:
            yield
        finally:
            for task in work:
                task.cancel()
            for task in work:
                with suppress(asyncio.CancelledError):
                    await task


async def _sell(till: Till, number: str) -> None:
    """Sell to one shopper, again and again; each time something is refused, and a receipt comes on a stream."""
    shopper = card(number)
    session = till.pos.Session(metadata=till.auth)
    while True:
        quote = checkout_pb2.QuoteRequest(identifier=shopper, receipt=till.receipt([("brie", 10_000)]))
        await till.pos.Quote(quote, metadata=till.auth, timeout=10)
        await till.commit(till.commit_request([("milk", 10_000)], shopper))
        refused = await till.refused(checkout_pb2.IdentifyRequest(identifier=card(new_card())), "Identify")
        assert refused.reason == "IDENTIFIER_UNKNOWN"
        commit = till.commit_request([("bread", 2_000)], shopper)
        await session.write(checkout_pb2.SessionRequest(correlation_id=1, commit=commit))
        answer = await session.read()
        assert isinstance(answer, checkout_pb2.SessionResponse)
        assert answer.WhichOneof("answer") == "commit", answer
        await asyncio.sleep(0.02)  # enough to be seen; the machine is there for other tests as well


@needs_prometheus
async def test_every_panel_shows_data(prometheus: Prometheus, tallypoint: RunningServer) -> None:
    """Not only a query that parses: numbers, of what happens now."""
    missing = {(title, _filled_in(expression)) for title, expression in (*QUERIES, OF_THE_GROUP)}
    end = time.monotonic() + PATIENCE_SECONDS
    async with trade(tallypoint):
        while missing - {each for each in missing if each[0] in RARE} and time.monotonic() < end:
            for each in sorted(missing):
                if await asyncio.to_thread(prometheus.values, each[1]):
                    missing.discard(each)
            await asyncio.sleep(0.1)
    assert {title for title, _ in missing} <= RARE, missing


def _filled_in(expression: str) -> str:
    """Return a panel's query as Grafana would send it."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, expression
    return expression


@needs_prometheus
def test_every_rule_is_evaluated_and_none_cries_wolf(prometheus: Prometheus) -> None:
    """A server that does its work raises no alarm."""

    def evaluated() -> list[dict[str, Any]]:
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = _until(evaluated, "every rule was evaluated")
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    assert len(rules) == len(ALERTS) + len(rules_of("recording.yml"))
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []
    assert prometheus.values('up{job="tallypoint"}') == [1]
