"""The study of `asr tune`: its trials in Optuna's database, and which of them must be run again.

Any number of commands, on any number of machines, may work on one study. Each increments a heartbeat in the database
for the trials that it runs; trials whose heartbeat has stopped were interrupted. (Optuna's own heartbeat needs an SQL
database. The default here is a journal file, which unlike SQLite is safe on network file systems.)
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asr.config import nearest
from asr.files import as_json, differences
from asr.training.process import alive
from asr.training.space import Dimension
from asr.types import AsrError, ConfigError

try:
    import optuna
    from optuna.storages import journal
    from optuna.trial import TrialState
except ModuleNotFoundError as error:
    if error.name != "optuna":
        raise
    raise AsrError("asr tune needs Optuna: pip install 'optuna>=5' (or pip install 'asr-ctc[tune]')") from error

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"
HEARTBEAT = 30.0  # seconds between heartbeats
GRACE = 300.0  # seconds without a heartbeat after which a trial counts as abandoned
_CREATION = 30.0  # seconds to wait for the command that has just created the study
Search = Literal["grid", "random", "tpe"]


def open_storage(url: str, output: Path, *, create: bool = True) -> optuna.storages.BaseStorage:
    """The database at an SQLAlchemy URL, by default the journal file in `output`. Raises AsrError, in one line."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not url:
        path = output / JOURNAL
        if not create and not path.is_file():
            raise AsrError(f"{path}: no such study (give its folder with -o, or its database with --storage)")
        output.mkdir(parents=True, exist_ok=True)
        # Windows needs a privilege for symbolic links; elsewhere they lock on old network file systems, too.
        lock = journal.JournalFileOpenLock(str(path)) if os.name == "nt" else None
        try:
            return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=lock))
        except (ValueError, KeyError) as error:
            raise AsrError(f"{path}: not the journal of a study, or damaged ({error})") from error
    import sqlalchemy

    try:
        return optuna.storages.RDBStorage(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        first = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        shown = sqlalchemy.engine.make_url(url).render_as_string() if "://" in url else url  # hides a password
        raise AsrError(f"--storage {shown}: {first} (such as sqlite:////path/of/study.db)") from error


def create_study(
    storage: optuna.storages.BaseStorage,
    name: str,
    direction: Literal["minimize", "maximize"],
    attributes: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
) -> optuna.Study:
    """Create the study `name`, with a waiting trial for each cell of a grid, or load it if it exists.

    `attributes["asked"]` identifies it. Raises ConfigError, naming the first difference, if the existing study has
    other attributes.
    """
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    except optuna.exceptions.DuplicatedStudyError:
        study = load_study(storage, name)
        deadline = time.monotonic() + _CREATION
        while "created" not in study.user_attrs and time.monotonic() < deadline:
            time.sleep(0.2)
    if "created" in study.user_attrs:
        if changed := differences(study.user_attrs["asked"], as_json(attributes["asked"])):
            raise ConfigError(
                f"the study '{name}' is of another recipe or search ({changed[0]} differs): "
                "choose another folder with -o, or another name with --study"
            )
    else:  # new, or its creator was killed
        for key, value in attributes.items():
            study.set_user_attr(key, value)
    queued = [_fixed(trial) for trial in study.get_trials(deepcopy=False)]
    for cell in cells:
        if cell not in queued:
            study.enqueue_trial(dict(cell))
    if "created" not in study.user_attrs:
        study.set_user_attr("created", True)
    return study


def load_study(storage: optuna.storages.BaseStorage, name: str = "") -> optuna.Study:
    """The study of that name, by default the only one. Raises AsrError naming the existing ones."""
    names = optuna.get_all_study_names(storage)
    if name not in names and (name or len(names) != 1):
        known = nearest(name, names) if names else " (it holds none)"
        raise AsrError(
            f"there is no study '{name}' in the database{known}" if name else f"name one with --study{known}"
        )
    return optuna.load_study(study_name=name or names[0], storage=storage)


def study_space(study: optuna.Study) -> list[Dimension]:
    """The dimensions that the study searches."""
    space = study.user_attrs["asked"]["space"]
    return [Dimension(**{**dimension, "choices": tuple(dimension["choices"])}) for dimension in space.values()]


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters of a trial, even if it is waiting."""
    return trial.system_attrs.get("fixed_params", trial.params)


def next_trial(
    study: optuna.Study, space: Sequence[Dimension], search: Search, seed: int, most: int
) -> optuna.Trial | None:
    """A trial to run now, waiting or new, with its parameters; None if `most` trials exist.

    The seed depends on the number of the trial, so that neither commands that share a study nor a resumed one draw the
    same parameters twice.
    """
    trials = current(study)
    if not any(t.state == TrialState.WAITING for t in trials) and (len(trials) >= most or search == "grid"):
        return None
    trial = study.ask()
    number = int(hashlib.sha256(f"{seed} {trial.number}".encode()).hexdigest()[:8], 16)
    if search == "tpe":
        study.sampler = optuna.samplers.TPESampler(seed=number, constant_liar=True)
    else:
        study.sampler = optuna.samplers.RandomSampler(seed=number)
    for dimension in space:
        key = dimension.key
        if dimension.kind == "list":
            trial.suggest_categorical(key, dimension.labels)
        elif dimension.kind == "int":
            trial.suggest_int(key, int(dimension.low), int(dimension.high), step=dimension.step)
        else:
            trial.suggest_float(key, dimension.low, dimension.high, log=dimension.kind == "loguniform")
    trial.set_user_attr("folder", trial.user_attrs.get("folder", f"trial-{trial.number:04d}"))
    return trial


def current(study: optuna.Study) -> list[FrozenTrial]:
    """The trials without those that were run again."""
    trials = study.get_trials(deepcopy=False)
    replaced = {trial.user_attrs.get("again") for trial in trials}
    return [trial for trial in trials if trial.number not in replaced]


def run_again(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Queue the parameters and folder of an interrupted or failed trial again; False if another command already did."""
    if not trial.state.is_finished():
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            return False
    known = {"again": trial.number} | {k: v for k, v in trial.user_attrs.items() if k == "folder"}
    study.enqueue_trial(_fixed(trial), known)
    return True


def heartbeat(trial: optuna.Trial, count: int) -> bool:
    """Set the heartbeat of a running trial; False if another command found it abandoned and queued it again."""
    try:
        trial.set_user_attr("runner", [socket.gethostname(), os.getpid(), count])
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    return True


@dataclass
class HeartbeatMonitor:
    """Finds abandoned trials by their heartbeats and this machine's clock."""

    study: optuna.Study
    last: dict[int, tuple[int, float, bool]] = field(default_factory=dict)  # heartbeat, its time, whether it ever rose

    def abandoned(self, mine: Sequence[int]) -> tuple[list[FrozenTrial], int]:
        """The abandoned trials among the running ones except `mine`, and the number of those not known yet."""
        dead, unsure, now = [], 0, time.monotonic()
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number in mine:
                continue
            host, process, count = trial.user_attrs.get("runner", ["", 0, 0])
            last, since, rose = self.last.get(trial.number, (count, now, False))
            if count != last:
                since, rose = now, True
            self.last[trial.number] = (count, since, rose)
            here = host == socket.gethostname()
            if (here and (process == os.getpid() or not alive(process))) or now - since > GRACE:
                dead.append(trial)
            elif not rose:
                unsure += 1
        return dead, unsure
