"""Properties of bucketed batches."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datasets import BucketBatchSampler, build_loader, samplers
from src.datasets.samplers import shard_order
from src.utils.errors import UserError

durations = st.lists(st.floats(0.1, 30, allow_nan=False), max_size=60)
limits = st.tuples(
    st.none() | st.integers(1, 9),
    st.none() | st.floats(1, 60),
    st.none() | st.dictionaries(st.floats(0.5, 40), st.integers(1, 9), min_size=1, max_size=3),
).filter(any)


def rows(sampler: BucketBatchSampler, epoch: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return [[row for _, row in batch] for batch in sampler]


@settings(max_examples=80, deadline=None)
@given(durations, limits, st.booleans(), st.integers(0, 5), st.integers(0, 5))
def test_every_row_once_within_the_limits_and_repeatable(clips, limits, shuffle, seed, epoch) -> None:
    batch_size, seconds, by_length = limits
    sampler = BucketBatchSampler(clips, *limits, shuffle, seed)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(sampler) == len(batches)
    assert sorted(row for batch in batches for _, row in batch) == list(range(len(clips)))
    assert all(e == epoch for batch in batches for e, _ in batch)
    for batch in batches:
        lengths = [clips[row] for _, row in batch]
        assert batch_size is None or len(batch) <= batch_size
        assert seconds is None or len(batch) == 1 or len(batch) * max(lengths) <= seconds
        fitting = [clips for length, clips in sorted((by_length or {}).items()) if length >= max(lengths)]
        assert by_length is None or len(batch) <= [*fitting, 1][0]
    again = BucketBatchSampler(clips, *limits, shuffle, seed)
    again.set_epoch(epoch + 1)
    list(again)
    again.set_epoch(epoch)
    assert list(again) == batches == list(again)


@given(durations, st.integers(0, 70), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_a_resumed_epoch_goes_on_at_its_position(clips, position, epoch) -> None:
    sampler = BucketBatchSampler(clips, batch_size=3, shuffle=True)
    sampler.set_epoch(epoch)
    whole = list(sampler)
    sampler.set_epoch(epoch, position)
    assert list(sampler) == whole[position:] and len(sampler) == len(whole)


def test_seed_and_epoch_change_the_order() -> None:
    def batches(seed: int, epoch: int) -> list[list[int]]:
        return rows(BucketBatchSampler(np.linspace(1, 9, 100), batch_size=4, shuffle=True, seed=seed), epoch)

    assert batches(0, 0) != batches(0, 1) and batches(0, 0) != batches(1, 0)


def test_without_shuffling_the_longest_come_first() -> None:
    sampler = BucketBatchSampler([1.0, 5.0, 3.0, 5.0, 2.0], batch_size=2)
    assert list(sampler) == [[(0, 1), (0, 3)], [(0, 2), (0, 4)], [(0, 0)]]


def test_batches_hold_clips_of_similar_length() -> None:
    clips = np.random.default_rng(0).uniform(1, 20, 3000)
    batches = rows(BucketBatchSampler(clips, max_batch_duration_s=200, shuffle=True))
    padded = sum(len(batch) * clips[batch].max() for batch in batches)
    assert clips.sum() / padded > 0.97


def test_no_limit_is_an_error() -> None:
    with pytest.raises(UserError, match="batch_size"):
        BucketBatchSampler([1.0])


def test_a_batch_is_filled_up_to_the_limit_and_no_longer_clip_before_it_counts() -> None:
    clips = [5.0, 5.0, 2.0, 2.0, 2.0, 2.0, 2.0]  # 2 x 5 s and 5 x 2 s are 10 s exactly
    batches = rows(BucketBatchSampler(clips, max_batch_duration_s=10))
    assert batches == [[0, 1], [2, 3, 4, 5, 6]]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 300), st.integers(0, 3))
def test_a_shuffled_epoch_passes_through_the_shards_and_mixes_a_few(shards, clips, epoch) -> None:
    """Once five shards have begun after a shard, nothing of it comes, but for what a window and its sort move."""
    clips *= shards
    shard = np.repeat(np.arange(shards), clips // shards)
    lengths = np.random.default_rng(0).uniform(1, 9, clips)
    batches = rows(BucketBatchSampler(lengths, 1, shuffle=True, shards=shard), epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(clips))
    places = np.argsort(shard_order(0, epoch, shards))
    came = places[shard[np.concatenate(batches)]]  # which place in the order each clip's shard has
    window = samplers.WINDOW // (clips // shards) + 1  # shards of a window
    furthest = np.maximum.accumulate(came)
    assert (furthest - came).max() <= samplers.MIXED_SHARDS + window


def test_clips_of_one_shard_do_not_stay_together() -> None:
    shard = np.repeat(np.arange(20), 1000)
    batches = rows(BucketBatchSampler(np.full(20_000, 2.0), 8, shuffle=True, shards=shard))
    assert np.mean([len(set(shard[batch])) for batch in batches]) > 3


def test_a_large_epoch_is_planned_without_an_object_for_each_clip() -> None:
    clips = np.full(1_000_000, 5.0)
    tracemalloc.start()
    sampler = BucketBatchSampler(clips, max_batch_duration_s=100)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sampler) == 50_000 and next(iter(sampler))[0] == (0, 0)
    assert kept < 24 * len(clips)  # arrays of numbers; a list of lists takes some 50 bytes a clip more


def test_processes_share_an_epoch_batch_by_batch() -> None:
    settings = {"batch_size": 2, "shuffle": True, "seed": 3}
    clips = np.linspace(1, 9, 23)
    whole = rows(BucketBatchSampler(clips, **settings))
    shares = [rows(BucketBatchSampler(clips, **settings, rank=rank, processes=3)) for rank in range(3)]
    assert [shares[place % 3][place // 3] for place in range(len(whole))] == whole


def test_limits_are_reached_to_the_last_clip() -> None:
    for length, count in ((10.62, 27), (0.1, 3), (1.1, 49)):  # count * length / length is not count in floats
        sampler = BucketBatchSampler([length] * 60, max_batch_duration_s=count * length)
        assert len(rows(sampler)[0]) == count
    assert rows(BucketBatchSampler([4.0, 4.0, 4.0], clips_by_length={4: 2, 8: 1})) == [[0, 1], [2]]


@pytest.mark.parametrize("seconds", [1e18, 1e30, 1e308])
def test_a_limit_beyond_all_numbers_is_no_limit(seconds) -> None:
    assert len(rows(BucketBatchSampler([1.0, 2.0, 0.0], max_batch_duration_s=seconds))) == 1


def test_clips_by_length() -> None:
    clips = [3.0, 3.0, 3.0, 7.0, 7.0, 7.0, 20.0, 20.0]
    sampler = BucketBatchSampler(clips, clips_by_length={8: 2, 4: 3})
    assert rows(sampler) == [[6], [7], [3, 4], [5, 0], [1, 2]]
    for wrong, words in (([3], "must be a mapping"), ({0: 3}, "length in seconds"), ({5: 0}, "_length.5=0")):
        with pytest.raises(UserError, match=words):
            BucketBatchSampler(clips, clips_by_length=wrong)


def test_clips_meet_others_in_every_epoch() -> None:
    sampler = BucketBatchSampler(np.full(3000, 2.0), batch_size=4, shuffle=True)
    companies = [{frozenset(batch) for batch in rows(sampler, epoch)} for epoch in (0, 1)]
    assert len(companies[0] & companies[1]) < 5


@pytest.mark.parametrize("limit", [-1, 0, 1.5, "abc", True])
def test_impossible_limits_are_named(limit) -> None:
    with pytest.raises(UserError, match=f"batching.batch_size={limit} must be a whole number of at least 1"):
        BucketBatchSampler([1.0], batch_size=limit)
    if limit not in (1.5, True):
        with pytest.raises(
            UserError, match=f"batching.max_batch_duration_s={limit} must be a number above 0"
        ):
            BucketBatchSampler([1.0], max_batch_duration_s=limit)


@pytest.mark.parametrize("workers", [-1, "abc", None])
def test_impossible_numbers_of_workers_are_named(workers) -> None:
    with pytest.raises(UserError, match="num_workers=.* must be a whole number of at least 0"):
        build_loader([1], BucketBatchSampler([1.0], batch_size=1), workers)
