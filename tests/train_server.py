"""train.py in processes of its own, without the ten seconds that each would spend on imports.

One process imports everything, then forks a child per job; a child runs train.main as `python train.py` does. It can be told
to kill itself with SIGKILL at an exact moment, which no signal from outside hits. Threads: one, so that bits compare.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "offline"}


@dataclass(frozen=True)
class Ended:
    """code: exit status, negative for a signal; out, err: what was printed."""

    code: int
    out: str
    err: str


class TrainServer:
    """Use as a context manager; `run` waits for the child."""

    def __enter__(self) -> "TrainServer":
        command = [sys.executable, __file__]
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
        self.process = subprocess.Popen(command, cwd=REPOSITORY, **options)
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait()

    def run(self, folder: Path, *argv, kill: tuple[str, int] | None = None, figures: bool = False) -> Ended:
        """train.main(argv), without figures and report unless asked for; its output lies in `folder`.

        kill: (moment, how many times it comes), the moments being the keys of _KILLS.
        """
        out, err = folder / "out.txt", folder / "err.txt"
        job = {"argv": list(map(str, argv)), "out": str(out), "err": str(err), "kill": kill, "figures": figures}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return Ended(json.loads(self.process.stdout.readline()), out.read_text(), err.read_text())


def _serve() -> None:
    import train  # noqa: F401  (before the first job: children inherit it)

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _work(**json.loads(line))
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _work(argv: list[str], out: str, err: str, kill: list | None, figures: bool) -> None:
    """Ends the process."""
    import command_line
    import report
    import train

    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if not figures:
        command_line.draw = report.report_run = lambda run: None
    if kill:
        _KILLS[kill[0]](kill[1])
    code = 1
    try:
        code = train.main(argv)
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(code or 0)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _wrap(module, name: str, before=lambda *args: None, after=lambda: None) -> None:
    original = getattr(module, name)

    def wrapped(*args, **kwargs):
        before(*args)
        result = original(*args, **kwargs)
        after()
        return result

    setattr(module, name, wrapped)


def _countdown(times: int):
    left = [times]

    def is_now() -> bool:
        left[0] -= 1
        return left[0] == 0

    return is_now


def _before_step(times: int) -> None:
    import train

    now = _countdown(times)
    _wrap(train, "train_step", before=lambda *_: now() and _die())


def _after_log(times: int) -> None:
    import run

    now = _countdown(times)
    _wrap(run, "append_log", after=lambda: now() and _die())


def _after_save(times: int) -> None:
    import checkpoint

    now = _countdown(times)
    _wrap(checkpoint, "save", after=lambda: now() and _die())


def _within_save(times: int) -> None:
    """Half of the file is written, beside the one before, which must count still."""
    import checkpoint

    now = _countdown(times)
    save = checkpoint.save

    def before(path: Path, content: dict) -> None:
        if now():
            whole = path.with_name("whole")
            save(whole, content)
            size = whole.stat().st_size
            os.truncate(whole, size // 2)
            whole.rename(path.with_name(path.name + ".part"))
            _die()

    _wrap(checkpoint, "save", before=before)


_KILLS = {"step": _before_step, "logged": _after_log, "saved": _after_save, "saving": _within_save}

if __name__ == "__main__":
    _serve()
