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


def test_efficiency_of_each_fusion_stands_beside_the_papers(mfuser):
    finished = mfuser("info", "--table", "efficiency")

    assert finished.returncode == 0, finished.stderr
    rows = [" ".join(line.split()) for line in finished.stdout.splitlines()]
    for row in (
        "self-attention 4.20 4.20 98.64 98.64 agrees",
        "separate-self-attention 8.40 8.40 71.08 71.08 agrees",
        "deformable 3.35 3.35 34.65 34.65 agrees",
        "mvfuser 1.67 1.67 17.21 17.21 agrees",
        "separate-mvfuser 3.34 17.21 not in table 3",
    ):
        assert [line for line in rows if line.startswith(row)], finished.stdout
