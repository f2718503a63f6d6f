"""The published openpi-client, unchanged, against the policy server.

It wants numpy below 2, so it lives in a virtual environment of its own, which the first run makes in out/openpi-client.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from serving_harness import LIBERO, RunningServer, observation, save_checkpoint

from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy
from depthvla_policy.serving import adapters
from depthvla_policy.serving.service import Service

CACHE = Path(__file__).resolve().parents[4] / "out" / "openpi-client"
# What its websocket client imports; its other dependencies are for parts that are not used here.
OURS = [f"{name}=={importlib.metadata.version(name)}" for name in ("msgpack", "websockets", "typing_extensions")]
PACKAGES = ["openpi-client==0.1.2", "numpy==1.26.4", *OURS]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
SEED = 3
SCRIPT = """
import json, sys
import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

client = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]))
observation = json.load(sys.stdin)
for name, value in list(observation.items()):
    if name.startswith(("images/", "observation/")):
        observation[name] = np.array(value, np.float64 if name.endswith("state") else np.uint8)
answer = client.infer(observation)
try:
    client.infer({})
except RuntimeError as error:
    refusal = str(error)
again = client.infer(observation)
print(json.dumps({
    "numpy": np.__version__, "metadata": client.get_server_metadata(), "refusal": refusal,
    "actions": answer["actions"].tolist(), "again": again["actions"].tolist(), "timing": again["server_timing"],
}))
"""


@pytest.fixture(scope="module")
def python():
    """The interpreter of an environment with the genuine client."""
    interpreter, finished = CACHE / "bin" / "python", CACHE / "finished.txt"
    if not finished.exists() or finished.read_text().split() != PACKAGES:
        shutil.rmtree(CACHE, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(CACHE)], check=True)
        install = ["install", "--no-deps", "--quiet", "--timeout", "15", "--retries", "1", *PACKAGES]
        pip = [sys.executable, "-m", "pip", "--python", str(interpreter), *install]
        done = subprocess.run(pip, env=ENVIRONMENT, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"openpi-client cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        finished.write_text("\n".join(PACKAGES))
    return interpreter


def ask(python, port, sent):
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in sent.items()}
    done = subprocess.run(
        [str(python), "-c", SCRIPT, str(port)],
        input=json.dumps(plain),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_genuine(heard, service, wanted, missing):
    assert heard["numpy"].startswith("1."), "the client has its own numpy"
    assert heard["metadata"] == service.metadata
    assert np.array_equal(heard["actions"], wanted) and np.array_equal(heard["again"], wanted)
    assert f"{missing} is missing" in heard["refusal"]
    assert set(heard["timing"]) == {"infer_ms", "prev_total_ms"}


def test_the_published_client_gets_our_chunk(python, tmp_path, robot):
    policy = Policy.load(tiny_model.save_checkpoint(tmp_path / "tiny"))
    service = Service(policy, adapters.load("r1lite"), SEED)
    sent = observation(robot)
    wanted = policy.infer(Observation(0, sent["images"], sent["state"], sent["prompt"]), seed=SEED).actions
    flat = {f"images/{camera}": image for camera, image in sent.pop("images").items()} | sent
    with RunningServer(service) as port:
        heard = ask(python, port, flat)
    assert_genuine(heard, service, wanted, "images/head")


def test_the_published_client_gets_a_libero_chunk(python, tmp_path):
    adapter = adapters.load("libero")
    policy = Policy.load(save_checkpoint(tmp_path / "libero", adapter.robot), robot=adapter.robot)
    service = Service(policy, adapter, SEED)
    images = {"image": LIBERO["observation/image"], "wrist_image": LIBERO["observation/wrist_image"]}
    seen = Observation(0, images, LIBERO["observation/state"], LIBERO["prompt"])
    wanted = policy.infer(seen, seed=SEED).actions[:, :7]
    with RunningServer(service) as port:
        heard = ask(python, port, LIBERO)
    assert_genuine(heard, service, wanted, "observation/image")
