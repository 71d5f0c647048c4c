"""The log of a run: what is appended is read back, and a torn end harms nothing else."""

import math

import pytest

from errors import UserError
from runlog import append_log, read_log


def test_append_and_read(tmp_path):
    for number in range(3):
        append_log(tmp_path / "log.jsonl", {"kind": "x", "number": number})
    assert read_log(tmp_path) == [{"kind": "x", "number": number} for number in range(3)]
    assert (tmp_path / "log.jsonl").read_bytes().count(b"\n") == 3
    with pytest.raises(ValueError):
        append_log(tmp_path / "log.jsonl", {"value": math.nan})
    assert len(read_log(tmp_path)) == 3


def test_torn_last_line_is_left_out_and_then_replaced(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    log.write_text('{"a": 1}\n{"a": 2')
    assert read_log(tmp_path) == [{"a": 1}]
    assert f"{log}:2: last line is torn" in capsys.readouterr().err
    append_log(log, {"a": 3})
    assert log.read_text() == '{"a": 1}\n{"a": 3}\n'


def test_whole_last_line_without_newline_is_kept(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"a": 1}')
    append_log(tmp_path / "log.jsonl", {"a": 2})
    assert read_log(tmp_path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("text", ["", '{"kind": "epo', "[1]", "\ufffd"])
def test_malformed_line_in_the_middle(tmp_path, text):
    (tmp_path / "log.jsonl").write_text(f'{{"a": 1}}\n{text}\n{{"a": 3}}\n')
    with pytest.raises(UserError, match=r"log\.jsonl:2: not a JSON object"):
        read_log(tmp_path)
