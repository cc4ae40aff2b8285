"""The main job from outside the network, by the published ports; and what survives a restart."""

from tests.containers.stack import DOCKER, SERVICES, TINY, Stack


def test_smoke_walks_the_main_job_and_finds_all_closed(stack: Stack) -> None:
    told = stack.run("bash", "deploy/smoke.sh")
    assert "every container is healthy, read-only, without capabilities and without root" in told
    assert stack.is_healthy()
    stack.audit()


def test_data_outlives_down_and_up(stack: Stack, dataset: str) -> None:
    generator = stack.train(dataset, TINY)
    stack.succeeded(generator)
    batch = stack.sample(generator)
    stack.succeeded(batch)
    stack.succeeded(stack.report(dataset, batch))
    before = stack.contents()
    stack.compose("down")
    assert stack.compose("ps", "--all", "--quiet") == ""
    stack.up()
    assert stack.contents() == before
    stack.audit()


def test_no_process_belongs_to_root(stack: Stack) -> None:
    for service in SERVICES:
        container = stack.compose("ps", "--quiet", service).strip()
        users = stack.run(DOCKER, "top", container, "-eo", "pid,uid").split()[3::2]
        assert users
        assert "0" not in users, service
