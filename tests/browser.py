"""A headless Chromium for tests: that of the machine, driven by Playwright, which downloads none."""

import shutil

import pytest

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


@pytest.fixture(scope="module")
def browser():
    """Yield Playwright's browser; a test that uses it is skipped on a machine without Chromium.

    It ends with the module: as long as it is open, `asyncio.run` fails in the same thread.
    """
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    from playwright.sync_api import sync_playwright

    offline = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=offline)
        yield browser
        browser.close()
