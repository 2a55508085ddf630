"""The benchmark of throughput: figures that add up, files, and wrong usage. No figure itself is asserted."""

from __future__ import annotations

import json

import pytest
import torch
from throughput import main
from throughput_material import load, with_precision
from throughput_report import table


@pytest.fixture
def run(capsys):
    def call(*arguments):
        capsys.readouterr()
        status = main([*map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def manifest(write_audio, tmp_path):
    rows = []
    for i in range(4):
        write_audio(tmp_path / f"{i}.wav", 0.5 + i / 4, seed=i)
        rows.append({"id": str(i), "audio_filepath": f"{i}.wav", "duration": 0.5 + i / 4, "text": "abc de"})
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_transcribing_by_parts_and_precision(run, manifest, tiny_model, tmp_path):
    threads = torch.get_num_threads()
    options = ("--batch-size", "1,3", "--threads", "1", "--precision", "int8,float32,bfloat16")
    status, out, err = run("transcribe", manifest, "-m", tiny_model, *options, "-o", tmp_path / "out")
    assert status == 0
    assert len(out.splitlines()) == 1 + 6
    report = json.loads((tmp_path / "out" / "transcribe.json").read_text(encoding="utf-8"))
    assert {"machine", "versions", "revision", "date", "model", "data", "results"} <= set(report)
    rows = report["results"]
    assert [(row["precision"], row["batch_size"]) for row in rows] == [
        (p, b) for p in ("float32", "int8", "bfloat16") for b in (1, 3)
    ]
    for row in rows:
        assert row["audio_seconds"] == pytest.approx(3.5, abs=0.01)
        assert sum(row["parts"].values()) == pytest.approx(row["real_time_factor"], rel=1e-3, abs=1e-5)
        assert ("latency_p95" in row) == (row["batch_size"] == 1)
        assert row["peak_bytes"] >= 0
        assert row["wer_change"] == pytest.approx(row["wer"] - rows[1]["wer"], abs=1e-4)
    assert (tmp_path / "out" / "transcribe.png").read_bytes().startswith(b"\x89PNG")
    assert torch.get_num_threads() == threads
    assert len(err.splitlines()) == 6


def test_random_weights_on_noise(run):
    status, out, _ = run("transcribe", "--random", "1x8", "--limit", 2, "--seconds", 0.5, "--batch-size", 2, "--json")
    report = json.loads(out)
    assert status == 0
    assert (
        report["model"]["architecture"].startswith("recurrent: ")
        and "hidden_size 8, layers 1" in report["model"]["architecture"]
    )
    assert "wer" not in report["results"][0]
    assert report["data"] == "noise of 0.5 s"


def test_training_steps(run):
    _, out, _ = run("train", "--random", "1x8", "--seconds", 1, "--batch-size", "1,2", "--steps", 2, "--json")
    assert [row["audio_seconds"] for row in json.loads(out)["results"]] == [1, 2]


def test_decoders(run, manifest, tiny_model):
    _, out, _ = run("decode", manifest, "-m", tiny_model, "--json")
    [row] = json.loads(out)["results"]
    assert row["decoder"] == "greedy"
    assert row["microseconds_per_frame"] > 0
    assert "wer" in row


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_other_precisions_hear_nearly_the_same(cell, noise):
    from dataclasses import replace

    from asr.model.acoustic import AcousticModel

    file = load(None, "2x32", "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AcousticModel(replace(file.model_config, cell=cell), file.feature_config, 29).eval()
    samples = torch.from_numpy(noise(1.0))[None]
    lengths = torch.tensor([samples.shape[1]])
    with torch.inference_mode():
        exact, frames = model(samples, lengths)
        for precision in ("bfloat16", "int8"):
            other, same = with_precision(model, precision)(samples, lengths)
            assert other.dtype == torch.float32
            assert same.tolist() == frames.tolist()
            assert (other - exact).abs().max() < 0.1
            assert not torch.equal(other, exact)
        assert torch.equal(model(samples, lengths)[0], exact)  # the original is left as it was


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe", "--precision", "float16"], "precision 'float16' is not one of float32, bfloat16, int8"),
        (["transcribe", "--random", "big"], "--random takes layers x width"),
        (["transcribe", "--seconds", "0"], "--seconds must be positive"),
        (["train", "m.jsonl"], "train works on noise"),
        (["decode", "--decoder", "fast"], "decoder 'fast' is not one of"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_table_has_only_the_columns_that_are_known():
    text = table([{"decoder": "greedy", "real_time_factor": 0.01}])
    assert text.split() == ["decoder", "RTF", "x", "real", "time", "greedy", "0.01000", "100"]
