"""What a run says: the line of an evaluation, and the command at its end."""

from __future__ import annotations

from types import SimpleNamespace

from src.logger import Writers
from src.trainer.evaluation import Evaluation
from src.trainer.optimization import StepReport
from src.trainer.report import Reporter, how_to_use


def test_an_evaluation_shows_the_accuracies_that_the_objective_measures(capsys):
    prepared = SimpleNamespace(dataset=SimpleNamespace(ids=["a"]))
    reporter = Reporter(Writers([]), None, SimpleNamespace(dataset=prepared), num_samples=0, seed=0)
    metrics = {"loss": 2.0, "first_pass_accuracy": 0.125, "wer_greedy": 1.0, "cer_greedy": 0.5}
    reporter.note_evaluation(7, Evaluation(metrics, {"a": "x"}, {"greedy": {"a": "y"}}), "greedy")
    line = "step 7: dev loss 2.000  greedy WER 100.00 %  CER 50.00 %  first pass accuracy 12.50 %"
    assert capsys.readouterr().out.strip() == line


def test_the_command_at_the_end_is_one_for_a_shell():
    config = {"decoders": {"greedy": {}, "beam": {}}}
    use = how_to_use(config, "my runs/one")
    assert use == "python inference.py 'checkpoint=my runs/one' data_dir=FOLDER save_dir=OUT decoder=beam"
    toy = how_to_use({**config, "training": {"config": "paraformer_toy"}}, "saved/toy")
    assert toy == "python scripts/toy_inference.py saved/toy --text 'hello world'"


def test_a_clip_that_is_too_short_is_named_with_the_objectives_reason(capsys):
    report = StepReport(too_short=["a"])
    for given, reason in (((), "too short: its encoder makes no frame of it"), (("no sound",), "no sound")):
        Reporter(Writers([]), None, None, 0, 0, *given).note_step(1, report, lr=0.1, log=False)
        assert capsys.readouterr().out.strip() == f"a: {reason}; its loss counts as 0"
