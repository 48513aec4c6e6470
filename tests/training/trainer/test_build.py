"""The model that a recipe trains."""

from pathlib import Path

from tests.support.training.runs import small_recipe
from training.trainer.build import build


def test_the_names_of_trained_parameters_in_checkpoints(tmp_path: Path) -> None:
    """Runs of earlier versions can be resumed and exported."""
    names = build(small_recipe(tmp_path)).model.trainable_state().keys()
    modules = {name.split(".")[1] for name in names}
    assert modules == {"trunk", "mixing_head", "start_embedding", "end_embedding"}
    assert "thinker.trunk.model.layers.0.self_attn.q_proj.weight" in names
