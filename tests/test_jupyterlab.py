"""JupyterLab in Chromium: a notebook whose parameter is changed, and which is run, stopped, run
again and saved."""

import json
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torture

from labkit.core.config import Config
from labkit.lab import experiment
from labkit.store.checkpoint import SUFFIX, read_header
from labkit.store.folder import Store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
#: A notebook like the report's, with trainings of seconds.
IMAGES, CONFIG = 640, Config(epochs=2, batch_size=32)
CELLS = [
    "lr = 0.1",
    f"""
    import sys
    sys.path.insert(0, {str(Path(torture.__file__).parent)!r})
    import torture
    from labkit import Config, run_all, vary
    small = torture.small_data({IMAGES})
    torture.data.load = lambda name: small
    """,
    f"runs = run_all(vary({CONFIG}, lr=[0.001, lr]), device='cpu')",
    "print('done')",
]
QUIET = {"fetchNews": "false", "checkForUpdates": False}  # no questions, and no requests


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + torture.PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)
    return found


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a JupyterLab shows `section.ipynb`, which lies in `tmp_path`."""
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(source).strip()) for source in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, tmp_path / "section.ipynb")
    settings = tmp_path / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(QUIET))
    for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"):
        monkeypatch.setenv(f"JUPYTER_{name}", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("JUPYTERLAB_WORKSPACES_DIR", str(tmp_path / "workspaces"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=labkit"]
    command = [sys.executable, "-m", "jupyterlab", "--ServerApp.port_retries=0", *words]
    with (tmp_path / "jupyter.log").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)

    def answers() -> bool:
        assert server.poll() is None, (tmp_path / "jupyter.log").read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token=labkit")
        except OSError:
            return False
        return True

    try:
        wait_for(answers)
        yield f"http://127.0.0.1:{port}/lab/tree/section.ipynb?token=labkit"
    finally:
        server.terminate()  # and its kernels
        server.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_stopped_in_jupyterlab_a_notebook_goes_on_and_stays_small(address, tmp_path, own_store):
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright on this machine")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        tab = browser.new_page()
        tab.set_default_timeout(1000 * torture.PATIENCE)
        tab.goto(address)
        tab.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        cells = tab.locator(".jp-CodeCell")
        training = cells.nth(2).locator(".jp-OutputArea-output")

        def run_all_cells() -> None:
            tab.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
            tab.locator('[data-command="runmenu:run-all"]').click()
            training.locator("img").wait_for()  # the live display

        cells.nth(0).locator(".cm-content").click()
        tab.keyboard.press("Control+a")
        tab.keyboard.type("lr = 0.05")
        run_all_cells()
        assert training.count() == 1
        tab.locator('.jp-Toolbar [data-command="notebook:interrupt-kernel"]').click()
        training.filter(has_text="stopped").wait_for()
        line, sentence = training.all_inner_texts()
        assert line.strip() == "2 runs: 2 not trained to the end"
        said = re.fullmatch(
            r"stopped at epoch (\d), iteration (\d+); run again to go on", sentence.strip()
        )
        (path,) = own_store.glob(f"*{SUFFIX}")
        done, iterations, _ = read_header(path)["iterations"]
        assert divmod(done, iterations) == tuple(map(int, said.groups()))

        run_all_cells()
        cells.nth(3).locator(".jp-OutputArea-output").wait_for()  # none before: it had not run
        tab.keyboard.press("Control+s")
        saved = tmp_path / "section.ipynb"
        text = wait_for(lambda: "done\\n" in saved.read_text() and saved.read_text())
        browser.close()
    assert "lr = 0.05" in text and "image/png" not in text and len(text) < 10_000
    outputs = nbformat.reads(text, 4).cells[2].outputs
    assert len(outputs) == 1
    assert re.fullmatch(r"2 runs: 2 trained in \d+:\d\d", outputs[0].data["text/plain"])

    digest = torture.data.checksum(CONFIG.dataset)
    first, second = (Store().find(CONFIG.replace(lr=lr), digest) for lr in (0.001, 0.05))
    assert len(first.provenance["resumed"]) == 1 and "resumed" not in second.provenance
    small = torture.small_data(IMAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torture.data, "load", lambda name: small)
        own = Store(tmp_path / "own", shipped=None)
        whole = experiment.run(first.config, device="cpu", log="none", store=own)
    assert torture.same(first, whole)
