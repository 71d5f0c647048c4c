"""Everything that is wrong with a set, not only the first thing: shared by the readers, training and DL_data.check."""

from collections.abc import Callable, Iterable, Sequence

from tqdm import tqdm

from data import Dataset, Sample
from errors import UserError, nearest

SHOWN = 20  # findings spelt out in one error message; the rest is counted


class DataError(UserError):
    """All findings about one split at once. `findings` holds every one, the message the first SHOWN and the total.

    `dataset` is the reader with what could be used (broken entries left out), so that a check can go on to read the
    images; None where not even the layout was found. Training never uses it.
    """

    def __init__(self, findings: Sequence[str], dataset: Dataset | None = None):
        self.findings = tuple(findings)
        self.dataset = dataset
        super().__init__(listing(self.findings))


def listing(findings: Sequence[str], shown: int = SHOWN) -> str:
    """One finding as it is; several as a list of the first `shown`, followed by how many there are in total."""
    if len(findings) == 1:
        return findings[0]
    lines = [f"{len(findings)} findings" + (f", the first {shown}:" if len(findings) > shown else ":")]
    return "\n  - ".join([*lines, *findings[:shown]])


def open_with_findings(reader: type[Dataset], *args, **kwargs) -> tuple[Dataset | None, list[str]]:
    """Construct a reader; instead of raising, return what could be loaded (None: nothing) and every finding."""
    try:
        return reader(*args, **kwargs), []
    except DataError as error:
        return error.dataset, list(error.findings)
    except UserError as error:
        return None, [str(error)]


def findings(
    dataset: Dataset, on_sample: Callable[[int, Sample], None] | None = None, description: str = "checking"
) -> list[str]:
    """Read every item and return every finding about a file; an empty list means that training can read them all.

    `on_sample(index, sample)` receives each good sample, so that the decode can fill a cache or a hash. A progress bar
    named `description` shows on a terminal.
    """
    found: list[str] = []
    for index in tqdm(range(len(dataset)), desc=description, unit="image", leave=False, disable=None):
        try:
            sample = dataset.read(index)
        except DataError as error:
            found.extend(error.findings)
        except UserError as error:
            found.append(str(error))
        else:
            if on_sample is not None:
                on_sample(index, sample)
    return found


def vocabulary_findings(own: Iterable[str], expected: Sequence[str] | None, where: object) -> list[str]:
    """Compare a split's class names with the vocabulary asked for: unknown and missing names, whatever their order."""
    if expected is None:
        return []
    own = list(own)
    unknown = [f"{where}: unknown class '{name}'{nearest(name, expected)}" for name in own if name not in expected]
    missing = [
        f"{where}: class '{name}' is missing{nearest(name, own)}; every split needs the same classes"
        for name in expected
        if name not in own
    ]
    return unknown + missing
