"""When a probe asks next and what its answers come to."""

from __future__ import annotations

import pytest

from kubesvc.api.pods import ContainerPort, ExecAction, Probe, TCPSocketAction
from kubesvc.node import probes
from kubesvc.node.probes import Progress, Result, Role

GOOD, BAD = Result(True), Result(False, "no")
TCP = Probe(tcp_socket=TCPSocketAction(port=80))


def after(progress: Progress, probe: Probe, *results: Result) -> Progress:
    for result in results:
        progress = probes.observe(progress, probe, result)
    return progress


def test_readiness_begins_failing_and_one_success_is_enough() -> None:
    begun = probes.begin(Role.READINESS)
    assert not begun.passing
    assert after(begun, TCP, GOOD).passing


def test_readiness_is_lost_after_the_threshold_and_not_before() -> None:
    passed = after(probes.begin(Role.READINESS), TCP, GOOD)
    assert after(passed, TCP, BAD, BAD).passing
    assert not after(passed, TCP, BAD, BAD, BAD).passing
    assert after(passed, TCP, BAD, BAD, GOOD, BAD, BAD).passing


def test_success_threshold_counts_successes_in_a_row() -> None:
    probe = Probe(tcp_socket=TCPSocketAction(port=80), success_threshold=2)
    begun = probes.begin(Role.READINESS)
    assert not after(begun, probe, GOOD).passing
    assert after(begun, probe, GOOD, GOOD).passing


def test_liveness_begins_passing_and_fails_after_the_threshold() -> None:
    begun = probes.begin(Role.LIVENESS)
    assert begun.passing
    assert not probes.failed(after(begun, TCP, BAD, BAD), TCP)
    assert probes.failed(after(begun, TCP, BAD, BAD, BAD), TCP)


def test_until_the_first_success_attempts_come_soon_and_ever_later() -> None:
    progress, delays = probes.begin(Role.READINESS), []
    while probes.is_early(progress, TCP):
        progress = probes.observe(progress, TCP, BAD)
        delays.append(probes.delay(progress, TCP))
    assert delays[:3] == pytest.approx([0.02, 0.03, 0.045])
    assert delays == sorted(delays)
    assert delays[-1] == 10
    assert 10 < len(delays) < 20


def test_early_failures_of_a_startup_probe_do_not_count() -> None:
    probe = Probe(tcp_socket=TCPSocketAction(port=80), failure_threshold=2, period_seconds=1)
    progress = probes.begin(Role.STARTUP)
    while probes.is_early(progress, probe):
        progress = probes.observe(progress, probe, BAD)
        assert not probes.failed(progress, probe)
    assert not probes.failed(after(progress, probe, BAD), probe)
    assert probes.failed(after(progress, probe, BAD, BAD), probe)


def test_after_the_first_success_the_period_holds() -> None:
    passed = after(probes.begin(Role.READINESS), TCP, BAD, GOOD)
    assert probes.delay(passed, TCP) == 10
    assert probes.delay(probes.begin(Role.LIVENESS), TCP) == 10


def test_exec_attempts_are_further_apart() -> None:
    probe = Probe(exec=ExecAction(command=["true"]))
    assert probes.delay(after(probes.begin(Role.READINESS), probe, BAD), probe) == pytest.approx(0.1)


def test_what_was_known_of_an_adopted_container_stands() -> None:
    assert probes.begin(Role.READINESS, passing=True).passing
    assert probes.delay(probes.begin(Role.READINESS, passing=True), TCP) == 10


@pytest.mark.parametrize(("port", "number"), [(80, 80), ("http", 8080), ("81", 81)])
def test_port_number(port: int | str, number: int) -> None:
    assert probes.port_number(port, [ContainerPort(container_port=8080, name="http")]) == number


def test_an_unknown_port_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="couldn't find port"):
        probes.port_number("metrics", [])
