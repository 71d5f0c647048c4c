"""EfficientNet's weights from their published address, here a server on the loopback."""

import hashlib
import io

import pytest
import torch
from efficientnet_pytorch.utils import url_map
from loopback import running

from backbones.efficientnet import EfficientNet
from errors import UserError


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server that publishes random B0 weights under a name with their checksum; an empty cache folder."""
    donor = EfficientNet(variant="b0", pretrained=False)
    file = io.BytesIO()
    torch.save(donor.net.state_dict(), file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with running() as server:
        digest = hashlib.sha256(file.getvalue()).hexdigest()
        name = f"efficientnet-b0-{digest[:8]}.pth"
        server.files[name] = file.getvalue()
        monkeypatch.setitem(url_map, "efficientnet-b0", f"{server.url}/{name}")
        yield server, name, donor


def same_weights(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.net.state_dict().values(), b.net.state_dict().values(), strict=True))


def test_weights_are_fetched_once_and_a_broken_transfer_goes_on(published):
    server, name, donor = published
    server.faults[name] = ["cut"]
    assert same_weights(EfficientNet(variant="b0"), donor)
    assert len(server.asked(name)) == 2  # the second asked for the rest
    assert server.asked(name)[1] is not None
    assert same_weights(EfficientNet(variant="b0"), donor)
    assert len(server.asked(name)) == 2


def test_a_file_that_is_not_what_its_name_says_is_refused_and_removed(published, tmp_path):
    server, name, _ = published
    server.files[name] = b"something else" * 100
    with pytest.raises(UserError, match="sha256 is .* expected .*--backbone_weights"):
        EfficientNet(variant="b0")
    assert not list((tmp_path / "hub").rglob("*.pth"))


def test_without_a_network_the_error_names_the_address_and_the_ways_out(published, monkeypatch):
    server, name, _ = published
    monkeypatch.setitem(url_map, "efficientnet-b0", f"http://127.0.0.1:1/{name}")
    with pytest.raises(UserError, match=f"http://127.0.0.1:1/{name}") as error:
        EfficientNet(variant="b0")
    assert "--backbone_weights" in str(error.value)
    assert "efficientnet_lite0" in str(error.value)
