"""Seeds from names: a draw's place in a run decides it, so nothing random has a state to save."""

import hashlib


def seed_of(key: str) -> int:
    """A 63-bit seed from a key such as "0/det/epoch/3"."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1
