"""Which images of a large labelled set make the mini set."""

import hashlib
from collections import Counter, deque
from collections.abc import Collection, Hashable, Mapping, Sequence

from errors import UserError


def balanced_cut(
    labels: Mapping[str, Collection[Hashable]], classes: Sequence[Hashable], count: int, seed: int
) -> list[str]:
    """`count` of the ids in `labels` (id → classes in that image), sorted, every class held by nearly as many of them.

    Greedy, the scarcest first: take the class that the fewest chosen images hold (among equals the one with the fewest
    images to choose from) and add the next image with it, until there are enough. This is iterative stratification
    (Sechidis et al. 2011, Algorithm 1) with one deviation: every class is given the same share, not its natural one. In
    240 natural images of COCO half the objects are persons and eight are dogs.

    "Next" is the order of SHA-256(seed/id), so the cut is the same on every machine and Python version. UserError if
    there are not enough images or a class would stay without any.
    """
    order = sorted(labels, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    queues = {label: deque(name for name in order if label in labels[name]) for label in classes}
    supply = {label: len(queue) for label, queue in queues.items()}
    chosen: set[str] = set()
    held = Counter()
    while len(chosen) < count and any(queues.values()):
        scarcest = min((label for label in classes if queues[label]), key=lambda label: (held[label], supply[label]))
        name = queues[scarcest].popleft()
        if name not in chosen:
            chosen.add(name)
            held.update(labels[name])
    without = [str(label) for label in classes if not held[label]]
    if without or len(chosen) < count:
        raise UserError(
            f"cannot cut {count} images out of {len(labels)}: found {len(chosen)} with a label, classes without an "
            f"image: {', '.join(without) or 'none'}; expected {count} and one for every class: is the archive complete?"
        )
    return sorted(chosen)
