"""What tests change in a run on purpose, sealed as if a run had written it."""

from mtbkd.files import read_json, save_sealed, sha256_of


def seal_again(out):
    """Give the manifests of a run the hashes of its files as they are now."""
    for path in (out / "samples" / "manifest.json", out / "manifest.json"):
        if path.exists():
            manifest = read_json(path)
            del manifest["own_sha256"]
            hashes = {name: sha256_of(out / name) for name in manifest["sha256"]}
            save_sealed(path, manifest | {"sha256": hashes})
