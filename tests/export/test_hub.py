"""Up to a Hub and back, over HTTP, in a process of its own: the client reads its addresses when it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import export_students as students
from hub_server import HubServer
from recdistill.errors import ConfigError, RunError
from recdistill.export import Recommender, export_recommender, push
from shop import ring_dataset

_SCRIPT = """
import json, sys
from pathlib import Path
from recdistill.errors import RecdistillError
from recdistill.export import Recommender, push
from recdistill.runs import file_checksum
folder, server = Path(sys.argv[1]), {}
found = {"url": push(folder, "me/toy-shop", token="hf_secret")}
loaded = Recommender.from_pretrained("me/toy-shop")
found["answer"] = loaded.recommend([["i00", "i01"]], 5)["item_id"].to_list()
for name in ("me/nothing-here",):
    try:
        Recommender.from_pretrained(name)
    except RecdistillError as error:
        found["missing"] = type(error).__name__ + ": " + str(error)
import huggingface_hub.constants as constants
constants.HF_HUB_OFFLINE = True
found["offline"] = Recommender.from_pretrained("me/toy-shop").recommend([["i00", "i01"]], 5)["item_id"].to_list()
print(json.dumps(found))
"""


def test_up_and_down(tmp_path: Path) -> None:
    data = ring_dataset()
    made = students.recommender(data)
    export_recommender(made, tmp_path / "rec", dataset=data)
    (tmp_path / "rec" / "notes.pkl").write_bytes(b"not a part of it")
    server = HubServer()
    environment = {
        **os.environ,
        "HF_ENDPOINT": server.address,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "rec")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    server.shutdown()
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    expected = made.recommend([["i00", "i01"]], 5)["item_id"].to_list()
    assert found["answer"] == found["offline"] == expected
    assert found["missing"].startswith("RunError: me/nothing-here cannot be read from the Hub")
    stored = server.repositories["me/toy-shop"]
    names = {path.name for path in (tmp_path / "rec").iterdir()} - {"notes.pkl"}
    assert set(stored) - {".gitattributes"} == names
    assert all(stored[name] == (tmp_path / "rec" / name).read_bytes() for name in names)
    assert "Bearer hf_secret" in server.tokens


def test_names_and_folders_are_checked_before_anything_is_sent(tmp_path: Path) -> None:
    for name in ("toys", "me/../you", "me/a b", "/me/toys", "https://hub/me/toys"):
        with pytest.raises(ConfigError, match="user/name"):
            push(tmp_path, name)
    with pytest.raises(RunError, match="no recommender-export folder"):
        push(tmp_path, "me/toys")
    with pytest.raises(RunError, match="no folder and no name"):
        Recommender.from_pretrained(tmp_path / "nothing" / "here")


def test_a_folder_needs_no_hub(tmp_path: Path) -> None:
    data = ring_dataset()
    made = students.recommender(data)
    made.save(tmp_path / "rec")
    loaded = Recommender.from_pretrained(tmp_path / "rec")
    answers = [one.recommend([["i00"]], 3)["item_id"].to_list() for one in (loaded, made)]
    assert answers[0] == answers[1]
