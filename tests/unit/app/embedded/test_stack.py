import signal

import pytest

from app.embedded.processes import PartFailedError
from app.embedded.stack import Servers, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_servers_do_not_print_their_secrets() -> None:
    servers = Servers("db://u:hidden", "redis://:hidden", "http://s3", "hidden", "hidden", "bucket")
    assert "hidden" not in repr(servers)


def test_failure_quotes_the_log() -> None:
    error = PartFailedError("valkey", "ended with status 1", "first\nlast")
    assert str(error) == "valkey ended with status 1; its last lines:\n    first\n    last"


def test_failure_without_a_log_is_short() -> None:
    assert str(PartFailedError("valkey", "is not installed", "")) == "valkey is not installed"


@pytest.mark.parametrize(
    "line",
    [
        'could not bind IPv4 address "127.0.0.1": Address already in use',
        "bind: Address already in use",
        "port 1 for S3 (specified by flag s3.port) is not available on 127.0.0.1",
    ],
)
def test_taken_port_is_recognised(line: str) -> None:
    assert PartFailedError("part", "ended", line).is_port_taken
    assert not PartFailedError("part", "ended", "No space left on device").is_port_taken
