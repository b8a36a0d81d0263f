"""`mfuser info` says what is in the files."""

from mfuser_ros.checkpoints import load_model


def test_parts_provenance_and_licence_are_stated(mfuser, random_model):
    finished = mfuser("info", random_model)

    network, file = load_model(random_model)
    assert finished.returncode == 0, finished.stderr
    words = " ".join(finished.stdout.split())
    assert f"all {sum(tensor.numel() for tensor in network.parameters()):,}" in words
    assert f"vfm {sum(tensor.numel() for tensor in network.vfm.parameters()):,}" in words
    for fact in (file.sha256, "CC0-1.0", "random weights, seed 1", "traffic light"):
        assert fact in words


def test_corrupt_weights_are_one_line(mfuser, random_model, tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(random_model.read_bytes()[:-1])
    (tmp_path / "torn.yaml").write_bytes(random_model.with_suffix(".yaml").read_bytes())

    finished = mfuser("info", tmp_path / "torn.safetensors")

    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert "SHA-256" in finished.stderr
