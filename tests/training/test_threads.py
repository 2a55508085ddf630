"""What a training sets for OpenMP: before torch is loaded, and only where the user has not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asr.training.process import THREAD_ENVIRONMENT

ROOT = Path(__file__).parents[2]
# Run with a module finder that notes the environment at the moment torch is imported, and stops the program there.
PROBE = """
import os, sys

class Torch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print([os.environ.get(variable) for variable in {variables}])
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, Torch())
sys.path.insert(0, {folder!r})
{call}
"""
TRAIN = "from asr.__main__ import main; main(['train', 'recipes/mini/recipe.yaml'])"
RECIPE = "import prepare, pathlib; from asr.recipe.run import main; main(pathlib.Path({folder!r}), prepare, [])"


@pytest.mark.parametrize("call", [TRAIN, RECIPE])
@pytest.mark.parametrize("own", [{}, dict.fromkeys(THREAD_ENVIRONMENT, "the user's")])
def test_the_environment_is_set_before_torch_is_imported(call: str, own: dict[str, str]) -> None:
    folder = str(ROOT / "recipes" / "mini")
    code = PROBE.format(variables=list(THREAD_ENVIRONMENT), folder=folder, call=call.format(folder=folder))
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_ENVIRONMENT} | own
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout == f"{list((own or THREAD_ENVIRONMENT).values())}\n", done.stderr
