"""SpeechDataset, collate and the workers: the same samples from every process, and no utterance lost without a word."""

from __future__ import annotations

import functools
import json
import pickle
import signal
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.augment import AugmentConfig
from asr.audio.features import FeatureConfig
from asr.corpus.batching import BatchSampler, EvaluationBatchSampler
from asr.corpus.check import frames_needed
from asr.corpus.manifest import Manifest
from asr.text.tokenizer import train_char
from asr.training import dataset as dataset_module
from asr.training.config import DataConfig, TextConfig, TrainConfig
from asr.training.data import UnreadableCount, data_loader
from asr.training.dataset import (
    Batch,
    Sample,
    SpeechDataset,
    auto_workers,
    collate,
    prepare_workers,
    shared_memory_is_small,
)
from asr.types import AudioError, Failure, TextError

RATE = 8000
COUNT = 12
NOT_AUGMENTED = AugmentConfig()


@pytest.fixture
def folder(tmp_path):
    """A dozen recordings of 0.1 to 0.65 s and their manifest."""
    rng = np.random.default_rng(3)
    rows = []
    for i in range(COUNT):
        samples = (rng.normal(0, 0.1, 800 + 400 * i)).clip(-0.9, 0.9)
        soundfile.write(tmp_path / f"{i}.wav", samples, RATE, subtype="PCM_16")
        rows.append({"id": f"u{i}", "audio_filepath": f"{i}.wav", "duration": len(samples) / RATE, "text": f"No {i}"})
    write_rows(tmp_path, rows)
    return tmp_path


def write_rows(folder, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "all.jsonl").write_text(lines, encoding="utf-8")


def edit_rows(folder, change):
    rows = [json.loads(line) for line in (folder / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    write_rows(folder, change(rows))


@pytest.fixture
def tokenizer():
    return train_char(["no 0123456789"])


def make(folder, tokenizer, augment=NOT_AUGMENTED, seed=0, normalizer="basic", training=True, **data):
    """The dataset of a configuration; `data` are fields of DataConfig."""
    config = TrainConfig(
        seed=seed,
        data=DataConfig(**data),
        text=TextConfig(normalizer),
        features=FeatureConfig(rate=RATE, hop_ms=5.0),
        augment=augment,
    )
    return SpeechDataset(config, Manifest.read(folder / "all.jsonl"), tokenizer, training=training)


def contents(batch):
    return [batch.epoch, batch.indices, batch.waveforms.tolist(), batch.tokens.tolist(), batch.lengths.tolist()]


def test_a_sample_is_the_recording_and_its_tokens(folder, tokenizer):
    sample = make(folder, tokenizer)[2, 5]
    recorded, _ = soundfile.read(folder / "5.wav", dtype="float32")
    assert (sample.epoch, sample.index, sample.failure) == (2, 5, None)
    assert np.array_equal(sample.waveform.numpy(), recorded)
    assert sample.waveform.dtype == torch.float32
    assert sample.duration == len(recorded) / RATE
    assert tokenizer.decode(sample.tokens.tolist()) == "no 5"
    assert make(folder, tokenizer).reference(5) == "no 5"


def test_segments_and_channels_are_read_as_the_manifest_says(folder, tokenizer):
    stereo = np.stack([np.full(RATE, 0.25), np.linspace(0, 0.5, RATE)], axis=1)
    soundfile.write(folder / "long.wav", stereo, RATE, subtype="PCM_16")
    row = {"audio_filepath": "long.wav", "duration": 0.5, "text": "no", "channel": 1}
    write_rows(folder, [{**row, "id": "a", "offset": 0.0}, {**row, "id": "b", "offset": 0.5}])
    data = make(folder, tokenizer)
    whole, _ = soundfile.read(folder / "long.wav", dtype="float32")
    assert np.allclose(data[0, 0].waveform, whole[: RATE // 2, 1], atol=1e-6)
    assert np.allclose(data[0, 1].waveform, whole[RATE // 2 :, 1], atol=1e-6)


def test_augmentation_depends_on_seed_epoch_and_index_only_and_is_for_training(folder, tokenizer):
    augment = AugmentConfig(speed=(0.9, 1.1), gain_db=6.0)

    def waveform(seed, epoch, training=True):
        return make(folder, tokenizer, augment=augment, seed=seed, training=training)[epoch, 4].waveform

    assert torch.equal(waveform(1, 2), waveform(1, 2))
    assert not torch.equal(waveform(1, 2), waveform(1, 3))
    assert not torch.equal(waveform(1, 2), waveform(2, 2))
    assert torch.equal(waveform(1, 2, training=False), waveform(2, 3, training=False))


def test_babble_is_of_other_utterances_that_can_be_read(folder, tokenizer):
    augment = AugmentConfig(noise=("babble",), noise_probability=1.0)
    data = make(folder, tokenizer, augment=augment)
    plain = make(folder, tokenizer)[0, 4].waveform
    noisy = [data[epoch, 4].waveform for epoch in (0, 1)]
    assert not torch.equal(noisy[0], plain) and not torch.equal(noisy[0], noisy[1])
    assert torch.equal(pickle.loads(pickle.dumps(data))[0, 4].waveform, noisy[0])
    assert torch.equal(make(folder, tokenizer, augment=augment, cache_audio=True)[0, 4].waveform, noisy[0])
    for i in range(COUNT):
        if i != 4:
            (folder / f"{i}.wav").unlink()
    assert torch.equal(make(folder, tokenizer, augment=augment)[0, 4].waveform, plain)


def test_a_batch_is_joined_two_by_two(folder, tokenizer):
    augment = AugmentConfig(join=1.0, silence=0.1)
    apart = make(folder, tokenizer, augment=AugmentConfig(silence=0.1))
    data = make(folder, tokenizer, augment=augment)
    [first, second, last] = data.__getitems__([(2, 5), (2, 7), (2, 3), (2, 0), (2, 9)])
    for joined, indices in ((first, (5, 7)), (second, (3, 0)), (last, (9,))):
        assert (joined.index, joined.epoch, joined.utterances) == (indices[0], 2, len(indices))
        assert tokenizer.decode(joined.tokens.tolist()) == " ".join(f"no {i}" for i in indices)
        parts = [apart[2, i].waveform for i in indices]
        assert torch.equal(joined.waveform[: len(parts[0])], parts[0])
        assert torch.equal(joined.waveform[-len(parts[-1]) :], parts[-1])
        assert joined.duration == len(joined.waveform) / RATE
    batch = collate([first, second, last])
    assert (len(batch), batch.utterances, batch.indices) == (3, 5, [5, 3, 9])
    assert batch.to("cpu").utterances == 5
    evaluated = make(folder, tokenizer, augment=augment, training=False).__getitems__([(0, 3), (0, 4)])
    assert [s.utterances for s in evaluated] == [1, 1]


def test_batches_are_joined_as_often_as_asked_and_only_within_the_bound(folder, tokenizer):
    keys = [(0, i) for i in range(COUNT)]

    def joined(epoch, **options):
        samples = make(folder, tokenizer, **options).__getitems__([(epoch, i) for _, i in keys])
        assert sum(s.utterances for s in samples) == COUNT
        return len(samples) < COUNT

    assert 20 <= sum(joined(e, augment=AugmentConfig(join=0.5)) for e in range(60)) <= 40
    assert not joined(0, augment=AugmentConfig())
    samples = make(folder, tokenizer, augment=AugmentConfig(join=1.0)).__getitems__(keys)
    needed = len(samples) * max(s.duration for s in samples)
    assert joined(0, augment=AugmentConfig(join=1.0), batch_seconds=needed + 1e-6)
    assert not joined(0, augment=AugmentConfig(join=1.0), batch_seconds=needed - 1e-6)


def test_what_cannot_be_read_is_not_joined(folder, tokenizer):
    (folder / "4.wav").unlink()
    data = make(folder, tokenizer, augment=AugmentConfig(join=1.0))
    samples = data.__getitems__([(0, 3), (0, 4), (0, 5)])
    assert [(s.index, s.utterances, s.failure is None) for s in samples] == [(3, 2, True), (4, 1, False)]
    assert len(data.__getitems__([(0, 4), (0, 3), (0, 5)])) == 3


def test_utterances_are_joined_by_twos_up_to_the_most(folder, tokenizer):
    keys = [(0, i) for i in range(COUNT)]
    data = make(folder, tokenizer, augment=AugmentConfig(join=1.0, join_up_to=4))
    sizes = Counter()
    for epoch in range(30):
        samples = data.__getitems__([(epoch, i) for _, i in keys])
        [largest] = {s.utterances for s in samples[:-1]}
        sizes[largest] += 1
        spelled = " ".join(tokenizer.decode(s.tokens.tolist()) for s in samples)
        assert spelled == " ".join(f"no {i}" for i in range(COUNT))
    assert set(sizes) == {2, 3, 4}


def test_only_what_ctc_can_align_is_joined(folder, tokenizer, monkeypatch):
    """As many frames as the texts need when they stand apart are one too few for the space between them."""
    keys = [(0, 2), (0, 3)]
    alone = make(folder, tokenizer).__getitems__(keys)
    needed = sum(frames_needed(s.tokens.tolist()) for s in alone)
    for frames, utterances in ((needed, [1, 1]), (needed + 1, [2])):
        monkeypatch.setattr(dataset_module, "output_length", lambda samples, features, model, n=frames: n)
        data = make(folder, tokenizer, augment=AugmentConfig(join=1.0))
        assert [s.utterances for s in data.__getitems__(keys)] == utterances


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6), st.booleans()), max_size=8))
def test_collate_pads_with_zeros_and_loses_nothing(shapes):
    samples = [
        Sample(i, torch.randn(n), torch.arange(k), n / 10, 3, Failure(f"u{i}", "f", "bad") if bad else None)
        for i, (n, k, bad) in enumerate(shapes)
    ]
    batch = collate(samples)
    good = [s for s in samples if s.failure is None]
    assert len(batch) == len(good)
    assert batch.indices == [s.index for s in good]
    assert [index for index, _ in batch.failures] == [s.index for s in samples if s.failure is not None]
    assert batch.waveforms.shape == (len(good), max([len(s.waveform) for s in good], default=0))
    assert {batch.lengths.dtype, batch.tokens.dtype, batch.token_lengths.dtype} == {torch.int64}
    assert batch.epoch == (3 if samples else 0)
    for row, length, sample in zip(batch.waveforms, batch.lengths, good, strict=True):
        assert torch.equal(row[:length], sample.waveform)
        assert not row[length:].any()
    for tokens, sample in zip(batch.tokens.split(batch.token_lengths.tolist()), good, strict=True):
        assert torch.equal(tokens, sample.tokens)
    moved = batch.to("cpu")
    assert contents(moved) == contents(batch)
    assert moved.failures == batch.failures


def test_dataset_collate_and_batch_pickle(folder, tokenizer):
    data = make(folder, tokenizer, augment=AugmentConfig(gain_db=3.0), cache_audio=True)
    for index in range(COUNT):
        data[0, index]
    size = len(pickle.dumps(data))
    copied = pickle.loads(pickle.dumps(data))
    assert size < 10_000  # neither audio nor rows travel to spawned workers
    assert torch.equal(copied[1, 3].waveform, data[1, 3].waveform)
    assert pickle.loads(pickle.dumps(collate)) is collate
    batch = collate([data[0, 0], data[0, 1]])
    assert contents(pickle.loads(pickle.dumps(batch))) == contents(batch)


def test_batches_go_through_pipes_where_shared_memory_is_scarce(folder, tokenizer, monkeypatch):
    batch = collate([make(folder, tokenizer)[0, i] for i in (0, 1)])
    monkeypatch.setattr(dataset_module, "_by_value", True)
    assert not any(isinstance(value, torch.Tensor) for value in batch.__getstate__().values())
    received = pickle.loads(pickle.dumps(batch))
    assert isinstance(received, Batch)
    assert contents(received) == contents(batch)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_cached_audio_is_exactly_the_audio(folder, tokenizer, subtype, monkeypatch):
    samples = np.random.default_rng(0).normal(0, 0.3, RATE).clip(-1, 1)
    soundfile.write(folder / "0.wav", samples, RATE, subtype=subtype)
    fresh, cached = make(folder, tokenizer), make(folder, tokenizer, cache_audio=True)
    expected = [fresh[0, i].waveform for i in range(COUNT)]
    assert all(torch.equal(cached[0, i].waveform, expected[i]) for i in range(COUNT))
    monkeypatch.setattr(dataset_module, "read", None)  # from here on only the cache can answer
    cached[0, 0].waveform.zero_()
    assert all(torch.equal(cached[1, i].waveform, expected[i]) for i in range(COUNT))


def test_the_cache_is_bounded(folder, tokenizer, monkeypatch):
    monkeypatch.setattr(dataset_module, "CACHE_BYTES", 1)
    data = make(folder, tokenizer, cache_audio=True)
    assert len(data[0, 0].waveform) == 800
    monkeypatch.setattr(dataset_module, "read", None)
    assert len(data[0, 0].waveform) == 800
    with pytest.raises(TypeError):
        data[0, 1]


def break_files(folder):
    (folder / "2.wav").unlink()
    (folder / "7.wav").write_bytes(b"this is not audio at all")


def test_unreadable_audio_is_kept_as_failures_in_evaluation(folder, tokenizer):
    break_files(folder)
    data = make(folder, tokenizer, training=False)
    batches = list(data_loader(data, EvaluationBatchSampler(data.manifest.durations, 2.0)))
    failed = dict(pair for batch in batches for pair in batch.failures)
    assert sorted(failed) == [2, 7]
    assert failed[2].id == "u2"
    assert "2.wav" in failed[2].error
    assert "\n" not in failed[7].error
    seen = [index for batch in batches for index in batch.indices] + list(failed)
    assert sorted(seen) == list(range(COUNT))


def test_unreadable_audio_is_named_and_counted_in_training(folder, tokenizer, caplog):
    break_files(folder)
    data = make(folder, tokenizer)
    count = UnreadableCount(len(data), limit=0.5)
    for epoch in range(2):
        count.add(collate([data[epoch, i] for i in range(6)]))
        count.add(collate([data[epoch, 7]]))  # a batch with nothing in it
    assert sorted(count.failures) == [2, 7]
    assert (count.read, count.failed) == (14, 4)
    assert sum("u2" in record.message for record in caplog.records) == 1  # named once, not every epoch


def test_more_than_one_percent_unreadable_is_an_error():
    def batch(good, bad):
        failures = [(i, Failure(f"u{i}", "f.wav", f"utterance 'u{i}': f.wav: no such file")) for i in range(bad)]
        return collate(
            [Sample(i, torch.ones(1), torch.ones(1), 1.0) for i in range(good)]
            + [Sample(i, torch.zeros(0), torch.zeros(0), 0.0, 0, failure) for i, failure in failures]
        )

    with pytest.raises(AudioError, match=r"more than 1%.*u0.*f\.wav.*asr data check"):
        UnreadableCount(50).add(batch(49, 1))
    count = UnreadableCount(100_000)
    count.add(batch(0, 10))  # early, but not yet more than 1 % of 1,000
    with pytest.raises(AudioError, match="11 of 11"):
        count.add(batch(0, 1))
    count = UnreadableCount(100_000)
    for _ in range(30):
        count.add(batch(199, 1))


def test_text_that_cannot_be_spelled(folder, tokenizer):
    edit_rows(folder, lambda rows: [{**rows[0], "text": "no € 1"}])
    with pytest.raises(TextError, match="u0"):
        make(folder, tokenizer, normalizer="none")[0, 0]
    evaluation = make(folder, tokenizer, normalizer="none", training=False)
    assert tokenizer.decode(evaluation[0, 0].tokens.tolist()) == "no 1"
    assert evaluation.reference(0) == "no € 1"  # what is scored is whole


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_resume_inside_an_epoch_through_workers_that_fetch_ahead(folder, tokenizer, context, request):
    request.addfinalizer(functools.partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(1)  # as in workers: resampling with more threads differs in the last bit
    data = make(folder, tokenizer, augment=AugmentConfig(speed=(0.9, 1.0, 1.1), silence=0.1, join=0.5), seed=4)

    def sampler():
        return BatchSampler(data.manifest.durations, 1.3, seed=4)

    unbroken = sampler()
    expected = []
    for _ in range(2):
        for batch in data_loader(data, unbroken):
            expected.append(contents(batch))
            unbroken.advance()
    assert unbroken.epoch == 2

    interrupted = sampler()
    loader = data_loader(data, interrupted, 2)
    trained = []
    for batch in loader:
        trained.append(contents(batch))
        interrupted.advance()
        if len(trained) == 2:
            break
    state = interrupted.state_dict()
    assert state["consumed"] == 2 < len(interrupted)
    del loader

    resumed = sampler()
    resumed.load_state_dict(state)
    loader = data_loader(data, resumed, 2, context=context)
    for _ in range(2):
        for batch in loader:
            trained.append(contents(batch))
            resumed.advance()
    assert trained == expected


def test_workers_are_deaf_to_interrupts_and_single_threaded(folder, tokenizer):
    probe = ProbeDataset(make(folder, tokenizer))
    loader = torch.utils.data.DataLoader(
        probe, batch_size=1, num_workers=1, worker_init_fn=dataset_module.worker_init, collate_fn=list
    )
    threads, interrupt_ignored, terminates_late, by_value = next(iter(loader))[0]
    assert threads == 1
    assert interrupt_ignored
    assert terminates_late
    assert by_value == shared_memory_is_small()


class ProbeDataset(torch.utils.data.Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return (
            torch.get_num_threads(),
            signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
            signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN,
            dataset_module._by_value,
        )


def test_prepare_workers_lifts_the_limit_of_open_files(monkeypatch):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        monkeypatch.setattr(dataset_module, "shared_memory_is_small", lambda: True)
        remarks = prepare_workers()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
        assert len(remarks) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_auto_workers_leaves_cores_to_training(monkeypatch):
    monkeypatch.setattr(dataset_module, "available_cores", lambda: 2)
    assert auto_workers("cpu") == 0
    assert auto_workers("cuda") == 1
    monkeypatch.setattr(dataset_module, "available_cores", lambda: 64)
    assert auto_workers("cpu") == 4
    assert auto_workers("cuda") == 8
    assert auto_workers("cuda", ranks=16) == 3
