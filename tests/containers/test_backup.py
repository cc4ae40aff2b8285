"""A backup goes into an empty stack, and all is there again; into any other it does not go."""

import shutil
from pathlib import Path

import pytest

from tests.containers.stack import TINY, Stack

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def filled(stack: Stack, dataset: str) -> str:
    """A dataset with a generator, a batch and a report; and a training that goes on meanwhile."""
    generator = stack.train(dataset, TINY)
    stack.succeeded(generator)
    batch = stack.sample(generator)
    stack.succeeded(batch)
    stack.succeeded(stack.report(dataset, batch))
    return dataset


def test_a_backup_restores_an_empty_stack(stack: Stack, filled: str, tmp_path: Path) -> None:
    contents = stack.contents()
    running = stack.begun(stack.train(filled))
    backup, saved = tmp_path / "backup", tmp_path / "data-key.json"
    stack.run("bash", "deploy/backup.sh", backup)
    stack.run("bash", "deploy/data-key.sh", "save", saved, given=f"{PASSPHRASE}\n")
    assert stack.inspect("scheduler", "{{.State.Status}}") == "running"
    secret = stack.variables()["DATA_KEY"]
    kept = [saved, *backup.iterdir()]
    assert not [path for path in kept if secret.encode() in path.read_bytes()]
    assert {path.stat().st_mode & 0o077 for path in (backup, *kept)} == {0}

    told = stack.run("bash", "deploy/restore.sh", backup, is_fine=False)
    assert "this stack is in use" in told
    stack.compose("down")
    told = stack.run("bash", "deploy/restore.sh", backup, is_fine=False)
    assert "the database is not empty" in told

    stack.compose("down", "--volumes")
    environment = stack.folder / ".env"
    environment.write_text(environment.read_text().replace(secret, "another" + secret[7:]))
    told = stack.run("bash", "deploy/restore.sh", backup, is_fine=False)
    assert "DATA_KEY in .env is not the one of this backup" in told
    stack.compose("down", "--volumes")
    wrong = ("bash", "deploy/data-key.sh", "restore", saved)
    assert "the passphrase is another" in stack.run(*wrong, given="wrong horse\n", is_fine=False)
    stack.run("bash", "deploy/data-key.sh", "restore", saved, given=f"{PASSPHRASE}\n")
    assert stack.variables()["DATA_KEY"] == secret

    stack.run("bash", "deploy/restore.sh", backup)
    job = stack.succeeded(running)
    assert job["attempts"][0]["outcome"] == "worker_lost"
    assert job["attempts"][-1]["resumed_from"]
    restored = stack.contents()
    assert {path: restored[path] for path in contents} == contents
    stack.audit()


def test_a_damaged_backup_is_refused(stack: Stack, filled: str, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    stack.run("bash", "deploy/backup.sh", backup)
    assert "exists, and is kept" in stack.run("bash", "deploy/backup.sh", backup, is_fine=False)
    for name in ("database.dump", "objects.tar", "manifest.txt"):
        copy = shutil.copytree(backup, tmp_path / name)
        damaged = bytearray((copy / name).read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (copy / name).write_bytes(damaged)
        assert "is damaged" in stack.run("bash", "deploy/restore.sh", copy, is_fine=False)
    stack.audit()
