"""A page of HTML in headless Chromium, where that is installed."""

import shutil
import subprocess

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")


def seen(page, folder, script, *, width=390, height=844):
    """What a script returns that runs in a page when it has loaded; nothing is fetched.

    Args:
      page: The path of the page.
      folder: A folder for Chromium's profile and the page with the script.
      script: The body of a function in JavaScript that returns a text.
      width, height: The size of the window in pixels.
    """
    copy = folder / "scripted.html"
    told = f"<script>document.title = 'told:' + (() => {{ {script} }})();</script>"
    copy.write_text(page.read_text() + told)
    found = subprocess.run(
        [
            PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},{height}", copy.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = found.stdout.partition("<title>")[2].partition("</title>")[0]
    assert title.startswith("told:"), found.stdout[:500]
    return title.removeprefix("told:")
