"""Registers that sell: `locust -f benchmarks/locust/locustfile.py`. README.md beside it says how to use it.

Every user is one terminal that holds its connection, with unary calls (`UnaryLane`) or a `Session` stream
(`SessionLane`). Name one of the classes on the command line to have only that kind.
"""

from __future__ import annotations

import functools
import io
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import gevent
from locust import User, argument_parser, events, tag, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner
from rich.console import Console
from tallypoint.v1 import checkout_pb2

from benchmarks.locust.ceiling import CeilingUnknown, measure
from benchmarks.locust.csv_files import complete_csv_files
from benchmarks.locust.lane import Lane
from benchmarks.locust.options import Options, add_options
from benchmarks.locust.prepared import NotPrepared, Prepared, Shopper, receipt_of
from benchmarks.locust.register import GivenUp, Outcome, Register
from benchmarks.locust.run import LAST_WORD, TAKE_LANES, Run
from benchmarks.locust.wire import NoAnswer, Server, SessionWire, UnaryWire, start_gevent

RECONNECT_HALF: Final = "tallypoint_reconnect_half"
"""The message upon which every second lane connects anew, all at once."""
_LEAST_POINTS_MINOR: Final = 100
"""Shoppers who have fewer points do not think of spending them."""
_TOUR_MEMBERS: Final = 3
_NANOSECONDS: Final = 1e9
_FILE_COLUMNS: Final = 140
_EXIT_CANNOT_RUN: Final = 2
_EXIT_INTERRUPTED: Final = 130

_runs: dict[Environment, Run] = {}


class LaneUser(User):
    """A terminal. Its tasks are checkouts, weighted as they are frequent."""

    abstract = True
    transport: type[UnaryWire | SessionWire]

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._run = _runs[environment]
        self._due = time.monotonic()
        self._lane: Lane | None = None

    def on_start(self) -> None:
        """Take a lane, connect, and wait for the first shopper: lanes do not begin all at once."""
        self._lane = lane = self._run.take_lane()
        address = self.host or self._run.prepared.pos_address
        server = Server(address, lane.terminal.key, self._run.prepared.tls_ca_pem)
        self.register = Register(self.transport(server), lane, self._report, self._run.options.scan_seconds)
        self._run.working.append(self.register)
        self.register.connect_if_possible()
        if self._run.options.tour:
            self._tour()
        self._due = time.monotonic() + lane.chance.random() * self._run.options.pace_seconds
        gevent.sleep(max(0.0, self._due - time.monotonic()))

    def _tour(self) -> None:
        """Serve each kind of shopper once; members first, so that some have points to spend."""
        members = [self.member] * _TOUR_MEMBERS
        others = (self.guest, self.coupon, self.points, self.change_of_mind, self.goods_back, self.resend)
        for checkout in (*members, *others, self.unknown_card):
            self._due = time.monotonic()
            checkout()

    def on_stop(self) -> None:
        """Hang up, and leave the lane to the next."""
        if self._lane is not None:
            self._run.working.remove(self.register)
            self.register.close()
            self._run.give_back(self._lane)

    def wait_time(self) -> float:
        """Return the seconds until the next checkout is due; one that is late begins at once."""
        pace_seconds = self._run.options.pace_seconds
        if not pace_seconds:
            self._due = time.monotonic()
            return 0.0
        self._due += pace_seconds
        return max(0.0, self._due - time.monotonic())

    # --- checkouts ---

    @tag("member")
    @task(46)
    def member(self) -> None:
        """A member shows card or phone, and pays with money."""
        self._sell(self._shop.next_shopper())

    @tag("guest")
    @task(25)
    def guest(self) -> None:
        """A shopper without a card."""
        self._sell(None)

    @tag("points")
    @task(10)
    def points(self) -> None:
        """A member pays with all points that the receipt takes: they are held, then captured."""
        with self._checkout():
            shopping = self.register.scan(self._shop.shopper_with_points(_LEAST_POINTS_MINOR))
            if not shopping.quote.max_spend_points_minor:
                self.register.pay(shopping)
                return
            held, checkout = self.register.hold(self.register.with_points(shopping))
            self.register.pay(held, checkout)

    @tag("points")
    @task(3)
    def change_of_mind(self) -> None:
        """A member wants to pay with points, and then pays with money after all."""
        with self._checkout():
            shopping = self.register.scan(self._shop.shopper_with_points(_LEAST_POINTS_MINOR))
            if shopping.quote.max_spend_points_minor:
                held, checkout = self.register.hold(self.register.with_points(shopping))
                shopping = self.register.cancel(held, checkout)
            self.register.pay(shopping)

    @tag("coupon")
    @task(6)
    def coupon(self) -> None:
        """A member presents a coupon."""
        self._sell(self._shop.next_shopper(), self._shop.coupon())

    @tag("return")
    @task(4)
    def goods_back(self) -> None:
        """Goods of an earlier receipt come back."""
        sold = self._shop.any_sold()
        if sold is None:
            self._sell(self._shop.next_shopper())
            return
        with self._checkout():
            self.register.give_back(sold)

    @tag("resend")
    @task(4)
    def resend(self) -> None:
        """The register sends an earlier receipt again, as if its answer had been lost."""
        sold = self._shop.any_sold()
        if sold is None:
            self._sell(None)
            return
        with self._checkout():
            self.register.resend(sold)

    @tag("refused")
    @task(2)
    def unknown_card(self) -> None:
        """A card that nobody knows; the shopper then buys without."""
        with self._checkout():
            self.register.show_unknown_card()
            self.register.pay(self.register.scan(None))

    # --- the rest ---

    @property
    def _shop(self) -> Lane:
        return self.register.lane

    def _sell(self, shopper: Shopper | None, coupon: str = "") -> None:
        with self._checkout():
            self.register.pay(self.register.scan(shopper, coupon))

    @contextmanager
    def _checkout(self) -> Iterator[None]:
        """Time a checkout from when it was due, without the time for scanning. One that fails has no time."""
        paused = self.register.paused_nanoseconds
        try:
            yield
        except GivenUp:
            return
        waited = int((time.monotonic() - self._due) * _NANOSECONDS)
        self._run.report_checkout(self.transport.kind, waited - (self.register.paused_nanoseconds - paused))

    def _report(self, outcome: Outcome) -> None:
        self._run.report(self.transport.kind, outcome)


class UnaryLane(LaneUser):
    """A lane that makes unary calls, as most do."""

    transport = UnaryWire
    weight = 3


class SessionLane(LaneUser):
    """A busy lane: all its calls go over one `Session` stream."""

    transport = SessionWire
    weight = 1


def _init(environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust passes more
    """Set up the process; the one that leads measures the generator first."""
    runner = environment.runner
    assert runner is not None
    assert environment.parsed_options is not None
    try:
        options = Options.of(environment.parsed_options)
        run = _runs[environment] = Run(environment, options, Prepared.load(options.prepared))
        _check_lanes(environment, run)
    except (NotPrepared, ValueError) as error:
        sys.stderr.write(f"No run. {error}\n")
        sys.exit(_EXIT_CANNOT_RUN)
    _take_interrupts(environment, run)
    if isinstance(runner, WorkerRunner):
        # At each step of a shape Locust would make it for every option, and the lanes would stand still meanwhile.
        vars(argument_parser)["default_args_dict"] = functools.cache(argument_parser.default_args_dict)
        runner.register_message(TAKE_LANES, lambda msg, **_: run.take_lanes(msg.data))
        runner.register_message(LAST_WORD, lambda **_: run.say_last_word())
        quitting: Any = environment.events.quitting  # not typed
        quitting.add_listener(lambda **_: run.leave())  # before Locust says that it goes
    start_gevent()
    if not isinstance(runner, WorkerRunner):
        _check_server(environment, run)
        _measure_ceilings(environment, run)
    if isinstance(runner, MasterRunner):
        runner.register_message(LAST_WORD, lambda msg, **_: run.hear_last_word(msg.node_id, msg.data))
    else:
        runner.register_message(RECONNECT_HALF, lambda **_: _reconnect_half(environment))
    if environment.web_ui is not None:
        _add_page(environment, run)
    gevent.get_hub().loop.update_now()  # its clock stood still since the start, and --run-time is counted by it


def _check_lanes(environment: Environment, run: Run) -> None:
    """Refuse a run with more users than there are terminals: each user needs one."""
    options = environment.parsed_options
    assert options is not None
    terminals = len(run.prepared.terminals)
    if (options.num_users or 0) > terminals:
        raise ValueError(
            f"--users {options.num_users}, and {run.options.prepared} has {terminals} terminals. "
            f"Prepare more: python -m benchmarks.locust.prepare --terminals {options.num_users}"
        )


def _check_server(environment: Environment, run: Run) -> None:
    """End here if there is no server, or if it does not take the keys, rather than after minutes of failures."""
    options = environment.parsed_options
    assert options is not None
    if options.master and not options.processes:
        return  # the generators are on other machines, and this one need not reach the server
    prepared = run.prepared
    address = environment.host or prepared.pos_address
    wire = UnaryWire(Server(address, prepared.terminals[0].key, prepared.tls_ca_pem))
    request = checkout_pb2.QuoteRequest(receipt=receipt_of(prepared.baskets[0], prepared.currency, int(time.time())))
    try:
        wire.call("Quote", request)
    except NoAnswer as error:
        why = {
            "UNIMPLEMENTED": "Is this the POS port?",
            "NOT_CONNECTED": "Is a server there, and was it prepared with --tls-ca if it speaks TLS?",
            "UNAUTHENTICATED": f"The keys in {run.options.prepared} are not this server's, or it was prepared again "
            "since. Prepare it: python -m benchmarks.locust.prepare --help",
        }.get(error.reason)
        if why is not None:  # whatever else it says is for the run to show
            sys.stderr.write(f"No run. {address}: {error}. {why}\n")
            sys.exit(_EXIT_CANNOT_RUN)
    finally:
        wire.close()


def _take_interrupts(environment: Environment, run: Run) -> None:
    """Let Ctrl-C end the run as Locust expects it: in the greenlet that waits for the end, never in a lane's.

    With the web page, Locust may only end the run at the first one; then the next one ends the page.
    """
    options = environment.parsed_options
    assert options is not None

    def interrupt() -> None:
        reason: BaseException = KeyboardInterrupt()
        if options.headless:
            watcher.cancel()
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if options.headless and not options.worker:
            if run.was_begun:
                sys.stderr.write("Stopping; what came of the run follows. Ctrl-C once more ends at once.\n")
            else:
                sys.stderr.write("Stopped before the run began.\n")
                reason = SystemExit(_EXIT_INTERRUPTED)
        gevent.get_hub().handle_system_error(type(reason), reason)

    watcher = gevent.signal_handler(signal.SIGINT, interrupt)


def _measure_ceilings(environment: Environment, run: Run) -> None:
    seconds = run.options.ceiling_seconds
    if not seconds:
        return
    assert environment.parsed_options is not None
    processes = environment.parsed_options.processes or 1
    sys.stderr.write("Measuring what the generator itself manages; --ceiling-seconds 0 does not.\n")
    transports = sorted({each.transport.kind for each in environment.user_classes if issubclass(each, LaneUser)})
    try:
        run.ceilings = measure(run.options.prepared, transports, processes, seconds)
    except CeilingUnknown as error:
        sys.stderr.write(f"{error}\n")
    for ceiling in run.ceilings:
        sys.stderr.write(f"{ceiling}\n")


def _reconnect_half(environment: Environment) -> None:
    """Let every second lane of this process connect anew, all at once."""
    for register in _runs[environment].working[::2]:
        gevent.spawn(register.connect_if_possible)


def _add_page(environment: Environment, run: Run) -> None:
    """Show the summary so far at /summary of the web page."""

    def summary() -> tuple[str, int, dict[str, str]]:
        page = io.StringIO()
        console = Console(width=_FILE_COLUMNS, file=page, highlight=False, soft_wrap=True)
        if run.was_begun:
            run.show(console)
        else:
            console.print("No run yet.")
        return page.getvalue(), 200, {"Content-Type": "text/plain; charset=utf-8"}

    assert environment.web_ui is not None
    assert environment.web_ui.app is not None
    environment.web_ui.app.add_url_rule("/summary", view_func=summary)


def _test_start(environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust passes more
    assert environment.parsed_options is not None
    run = _runs[environment]
    try:
        run.begin(Options.of(environment.parsed_options))
    except ValueError as error:  # from the web page; the command line's were read before
        run.begin(run.options, f"this run has the options of the one before: {error}")
    run.share_lanes()


def _test_stopping(environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust passes more
    """End before the users do: what they break off does not count. The master must have stopped its shape first."""
    if not isinstance(environment.runner, MasterRunner):
        _runs[environment].end()


def _test_stop(environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust passes more
    _runs[environment].end()


def _reset_stats() -> None:
    for run in _runs.values():
        run.reset()


def _report_to_master(data: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 - Locust passes more
    for run in _runs.values():
        run.tell(data)


def _worker_report(data: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 - Locust passes more
    for run in _runs.values():
        run.hear(data)


def _quitting(environment: Environment, **_: Any) -> None:  # noqa: ANN401 - Locust passes more
    """Decide the exit code, before Locust prints its own tables."""
    run = _runs[environment]
    run.end()
    if run.was_begun and not isinstance(environment.runner, WorkerRunner):
        passed = all(finding.passed for finding in run.findings())
        environment.process_exit_code = 0 if passed else 1
    else:
        environment.process_exit_code = environment.process_exit_code or 0


def _quit(**_: Any) -> None:  # noqa: ANN401 - Locust passes more
    """Print the summary, after Locust's own tables."""
    for environment, run in _runs.items():
        if run.was_begun and not isinstance(environment.runner, WorkerRunner):
            width = None if sys.stdout.isatty() else _FILE_COLUMNS
            run.show(Console(highlight=False, soft_wrap=True, width=width))


_LISTENERS: Final[dict[str, Callable[..., None]]] = {
    "init_command_line_parser": add_options,
    "init": _init,
    "test_start": _test_start,
    "test_stopping": _test_stopping,
    "test_stop": _test_stop,
    "reset_stats": _reset_stats,
    "report_to_master": _report_to_master,
    "worker_report": _worker_report,
    "quitting": _quitting,
    "quit": _quit,
}
for _event, _listener in _LISTENERS.items():
    getattr(events, _event).add_listener(_listener)
complete_csv_files()
