"""The benchmark of GPUs runs on the CPU, where its figures say nothing, and does not repeat what is done."""

from __future__ import annotations

import json

import pytest
from gpu import main


def test_sections_are_written_with_their_conditions_and_not_repeated(tmp_path, capsys):
    output = tmp_path / "gpu.json"
    options = ["--device", "cpu", "--small", "--output", str(output)]
    assert main(["rows", *options]) == 0
    first = json.loads(output.read_text(encoding="utf-8"))
    assert [row["rows"] for row in first["rows"]["results"]] == [1, 2]
    assert {"machine", "versions", "revision", "date", "cudnn", "scale"} <= first["rows"].keys()
    assert main(["rows", "transcribe", *options]) == 0
    assert "rows: done before" in capsys.readouterr().err
    second = json.loads(output.read_text(encoding="utf-8"))
    assert second["rows"] == first["rows"]
    assert {row["dtype"] for row in second["transcribe"]["results"]} == {"float32", "bfloat16"}


def test_a_section_that_does_not_exist_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["speed", "--device", "cpu"])
    assert stop.value.code == 2 and "no section speed" in capsys.readouterr().err
