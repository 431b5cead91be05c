import json

import pytest
import torch

from training import benchmark


def test_a_table_and_json_of_the_small_model(tmp_path, capsys):
    output = tmp_path / "benchmark.json"
    arguments = ["--model", "small", "--device", "cpu", "--repeats", "1", "--compare", "--num_frames", "4"]
    assert benchmark.main([*arguments, "--output", str(output)]) == 0
    rows = {row["part"]: row for row in json.loads(output.read_text())["rows"]}
    assert set(rows) == {"decode", "decode and both views", "technical", "aesthetic", "alignment", "all branches"}
    for branch in ("technical", "aesthetic", "alignment"):
        assert rows[branch]["oracle_difference"] < 1e-4, "the fast and the plain networks give one score"
        assert rows[branch]["seconds"] > 0
        assert rows[branch]["gflop"] > 0
    total = sum(rows[branch]["gflop"] for branch in ("technical", "aesthetic", "alignment"))
    assert rows["all branches"]["gflop"] == pytest.approx(total)
    assert "technical" in capsys.readouterr().out


def test_flops_are_counted_right():
    left, right = torch.randn(64, 32), torch.randn(32, 16)
    assert benchmark.count_gflop(lambda: left @ right) == pytest.approx(2 * 64 * 32 * 16 / 1e9)
    q = torch.randn(2, 3, 10, 8)
    attended = benchmark.count_gflop(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert attended == pytest.approx(2 * 2 * 2 * 3 * 10 * 10 * 8 / 1e9), "attention counts, on the CPU too"
