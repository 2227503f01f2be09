# SPDX-License-Identifier: Apache-2.0
"""The bill of materials in the installed package says what is in it."""

import hashlib
import importlib.metadata
import json
import pathlib

import pageattn
import pytest


@pytest.fixture(scope="module")
def sbom():
    files = importlib.metadata.files("pageattn") or []
    found = [file for file in files if ".dist-info/sboms/" in file.as_posix()]
    assert [file.name for file in found] == ["pageattn.cdx.json"]
    return json.loads(found[0].read_text())


def test_sbom_names_the_package(sbom):
    metadata = importlib.metadata.metadata("pageattn")
    component = sbom["metadata"]["component"]
    assert component["name"] == metadata["Name"]
    assert component["version"] == metadata["Version"] == pageattn.__version__
    assert component["licenses"] == [{"license": {"id": metadata["License"]}}]


def test_sbom_lists_every_binary_with_its_hash(sbom):
    package = pathlib.Path(pageattn.__file__).parent
    binaries = {
        f"pageattn/{path.relative_to(package).as_posix()}": hashlib.sha256(path.read_bytes())
        for path in package.rglob("*")
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"
    }
    listed = {
        file["name"]: file["hashes"][0]["content"]
        for file in sbom["metadata"]["component"]["components"]
    }
    assert binaries
    assert listed == {name: digest.hexdigest() for name, digest in binaries.items()}


def test_sbom_needs_nothing_else(sbom):
    """All that comes from elsewhere is a header; test_symbols.sh looks what the binaries need."""
    vendored = ["xla/ffi/api/c_api.h"]
    assert [part["name"] for part in sbom["components"]] == vendored
    assert [entry["dependsOn"] for entry in sbom["dependencies"]] == [vendored]
