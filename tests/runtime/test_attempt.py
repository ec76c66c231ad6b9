"""Processes that torchrun starts again find nothing of the attempt before in its store."""

import torch.distributed as dist

from moec.runtime.attempt import Past, end_attempt, past_of, set_begun, set_saves, store_of_attempt


def test_an_attempt_that_has_ended_leaves_nothing_to_the_next():
    torchrun = dist.HashStore()
    first, same = store_of_attempt(torchrun), store_of_attempt(torchrun)
    first.set("said", "a")
    assert same.get("said") == b"a" and first.clone().get("said") == b"a"
    end_attempt(same.clone())
    end_attempt(first)
    second = store_of_attempt(torchrun)
    assert not second.check(["said"])


def test_where_no_one_could_end_an_attempt_the_restart_counts(monkeypatch):
    torchrun = dist.HashStore()
    store_of_attempt(torchrun).set("said", "a")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not store_of_attempt(torchrun).check(["said"])


def test_machines_that_count_restarts_otherwise_meet(monkeypatch):
    torchrun = dist.HashStore()
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    store_of_attempt(torchrun).set("said", "a")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert store_of_attempt(torchrun).get("said") == b"a"


def test_a_job_of_one_process_has_a_store_of_its_own():
    end_attempt(dist.HashStore())


def test_what_has_begun_is_known_to_attempts_that_follow():
    torchrun = dist.HashStore()
    refused = store_of_attempt(torchrun)
    run = past_of(refused).run
    end_attempt(refused)
    first = store_of_attempt(torchrun)
    assert past_of(first) == Past(run, begun=False, saves=False)
    set_begun(first)
    end_attempt(first)
    second = store_of_attempt(torchrun)
    assert past_of(second) == Past(run, begun=True, saves=False)
    set_saves(second)
    end_attempt(second)
    assert past_of(store_of_attempt(torchrun)) == Past(run, begun=True, saves=True)
    alone = past_of(dist.HashStore())
    assert alone.run != run and not alone.begun
