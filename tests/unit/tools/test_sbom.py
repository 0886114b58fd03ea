import json
import re
from pathlib import Path

from tools.sbom import ROOT, write


def test_sbom_holds_each_release_that_production_runs_with_its_hashes(tmp_path: Path) -> None:
    write(tmp_path / "sbom.json")
    document = json.loads((tmp_path / "sbom.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "llm-proxy"
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    components = {component["name"]: component for component in document["components"]}
    assert {name: component["version"] for name, component in components.items()} == pins
    for name, component in components.items():
        references = component["externalReferences"]
        assert any(each["alg"] == "SHA-256" for reference in references for each in reference["hashes"]), name
