"""Tensors that are alive."""

from __future__ import annotations

import torch

from src.utils.memory import LiveTensors


def test_tensors_count_while_somebody_holds_them():
    stage = ["a"]
    with torch.inference_mode(), LiveTensors(lambda: stage[0]) as live:
        kept = torch.ones(100)
        for _ in range(5):  # each is gone before the next
            torch.ones(1000) + 1
        stage[0] = "b"
        view = kept.view(10, 10).T
        assert live.bytes == 400
        total = view.sum()
        assert live.bytes == 404
        del kept, view, total
        assert live.bytes == 0
        torch.ones(1)
    assert live.peaks == {"a": 8400, "b": 404}


def test_weights_do_not_count_but_what_is_made_of_them_does():
    weight = torch.nn.Linear(10, 20)
    with LiveTensors(lambda: "a", weight.parameters()) as live:
        halves = weight.weight.chunk(2)
        assert live.bytes == 0
        copied = weight(torch.ones(1, 10))  # ones, and the result
        assert halves and copied.shape == (1, 20)
    assert live.peaks == {"a": 120}


def test_operators_inside_operators_are_seen():
    query = torch.ones(1, 1, 8, 4)
    with torch.inference_mode(), LiveTensors(lambda: "a", [query]) as live:
        torch.nn.functional.scaled_dot_product_attention(query, query, query, torch.zeros(8, 8))
    assert (
        live.peaks["a"] > query.nbytes + 4 * 8 * 8
    )  # the result, the mask, and what the kernel returns beside
