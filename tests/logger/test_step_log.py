"""Lines of records, whatever stands in them."""

from __future__ import annotations

from src.logger.step_log import StepLog


def test_other_line_ends_in_a_text_end_no_record(tmp_path):
    log = StepLog(tmp_path / "log.jsonl", None)
    records = [{"step": number, "text": f"a{mark}b"} for number, mark in enumerate("\u2028\u2029\x85\x0b\n")]
    for record in records:
        log.append(record)
    assert log.read() == records and StepLog(tmp_path / "log.jsonl", 9).read() == records


def test_lines_that_hold_no_record_are_passed_over(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text('[1]\n3\nnull\n{"a": 1}\n{"step": "x"}\n{"step": null}\n{"step": 2}\n{"step": 3, "to')
    assert StepLog(file, 5).read() == [{"step": 2}]
