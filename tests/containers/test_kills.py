"""SIGKILL of each container during a training: it comes back, and the training ends well."""

import pytest

from tests.containers.stack import SERVICES, Stack


@pytest.mark.parametrize("service", SERVICES)
def test_training_outlives_the_end_of(stack: Stack, dataset: str, service: str) -> None:
    generator = stack.begun(stack.train(dataset))
    before = int(stack.inspect(service, "{{.RestartCount}}"))
    stack.kill(service)
    stack.until(lambda: int(stack.inspect(service, "{{.RestartCount}}")) > before, 60)
    job = stack.succeeded(generator)
    outcomes = [attempt["outcome"] for attempt in job["attempts"]]
    assert outcomes[-1] == "succeeded"
    if service == "worker-train-cpu":
        assert outcomes == ["worker_lost", "succeeded"]
        assert job["attempts"][1]["resumed_from"]
    stack.until(stack.is_healthy)
    stack.audit()
