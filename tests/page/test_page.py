#!/usr/bin/env python3
"""Drives the page of the HTTP API in a browser, against a real mount.

    python3 tests/page/test_page.py [--snapshots] URL KEY MOUNTPOINT [SCREENSHOT_DIR]

URL is where the page is, KEY a key of the API with the scope `restore` or more, MOUNTPOINT the mount
that it shows. Everything happens in a directory of its own there. Reading is taken to need no key, as
for root on this machine. With --snapshots it drives only their view, of a mount that has some, and the key has
the scope `admin`. Takes the Debian packages chromium-driver and python3-selenium; without them
it says SKIPPED and exits with 77.
"""

import os
import struct
import sys
import tempfile
import time
import zlib

DEBIAN = "/usr/bin/python3"

try:
    from selenium import webdriver
    from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError as missing:
    # Another python3 may come first in PATH than the one that Debian's packages are for.
    if os.path.exists(DEBIAN) and os.path.realpath(sys.executable) != os.path.realpath(DEBIAN):
        os.execv(DEBIAN, [DEBIAN, *sys.argv])
    print(f"SKIPPED: tests/page/test_page.py did not run: {missing} (package python3-selenium)")
    sys.exit(77)

DRIVER = "/usr/bin/chromedriver"
DEADLINE_S = 20
MANY = 5000


def wait(what, check):
    """Polls until `check` gives something true, and gives it."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            value = check()
        except StaleElementReferenceException:
            value = None
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {DEADLINE_S} s"
        time.sleep(0.05)


def png(side, colour):
    """An image of one colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(colour) * side for _ in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
)


class Page:
    """The page in the browser, and the directory that it looks at."""

    def __init__(self, url, key, mountpoint, shots):
        self.url = url.rstrip("/")
        self.key = key
        self.shots = shots
        self.directory = tempfile.mkdtemp(prefix="page-test-", dir=mountpoint)
        self.base = os.path.basename(self.directory)
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service(DRIVER), options=options)
        self.driver.set_script_timeout(DEADLINE_S)

    def write(self, name, data):
        path = os.path.join(os.fsencode(self.directory), name if isinstance(name, bytes) else name.encode())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())

    def read(self, name):
        with open(os.path.join(self.directory, name), "rb") as file:
            return file.read().decode()

    def open(self, path="", query=""):
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/#/{self.base}{path}{query}")

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css):
        return wait(f"an element {css}", lambda: next(iter(self.all(css)), None))

    def text(self, css):
        # Of what is scrolled out of view or hidden, `text` would be empty.
        return self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent).join('\\n')", css
        )

    def shows(self, css, text):
        return wait(f"{css} shows {text!r}, not {self.text(css)[:300]!r}", lambda: text in self.text(css))

    def lacks(self, css, text):
        return wait(f"{css} shows {text!r} no longer", lambda: text not in self.text(css))

    def click(self, css):
        wait(f"{css} can be clicked", lambda: self.one(css).is_displayed() and self.one(css).is_enabled())

        def act():
            try:
                self.one(css).click()
            except WebDriverException as error:
                if "intercepted" in str(error) or "not interactable" in str(error):
                    return False
                raise
            return True

        wait(f"{css} is clicked", act)

    def press(self, *keys):
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def focus(self):
        return self.driver.execute_script("return document.activeElement.textContent || document.activeElement.id")

    def row(self, text):
        """The link of the row that shows a text, whatever invisible things are in it."""
        return wait(
            f"a row {text!r}",
            lambda: next((link for link in self.all("#main [data-focus]") if text in link.text), None),
        )

    def slide(self, value):
        self.driver.execute_script(
            "const s = document.getElementById('time-slider'); s.value = arguments[0] === 'now' ? s.max : arguments[0];"
            "s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change'));",
            value,
        )

    def choose(self, name, value):
        self.driver.execute_script(
            "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'));",
            name,
            value,
        )

    def clean(self, *expected):
        """No errors and no violations of the policy, but for answers that were to be expected."""
        for entry in self.driver.get_log("browser"):
            words = entry["message"]
            assert entry["level"] != "SEVERE" or any(part in words for part in expected), f"the console says: {words}"
            assert "Content Security Policy" not in words, f"the policy is violated: {words}"

    def shot(self, name):
        if not self.shots:
            return
        os.makedirs(self.shots, exist_ok=True)
        for scheme in ("light", "dark"):
            self.media(scheme)
            self.driver.save_screenshot(os.path.join(self.shots, f"{name}-{scheme}.png"))
        self.media("light")

    def media(self, scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def phone(self, on):
        if on:
            metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        else:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def fill(page):
    page.write("docs/report.txt", "one\ntwo\nthree\n")
    page.write("docs/report.txt", "one\nTWO\nthree\n")
    page.write("docs/report.txt", "one\nTWO\nthree\nfour <b>bold</b>\n")
    page.write("docs/later.txt", "came later\n")
    page.write("pictures/red.png", png(40, (200, 30, 30)))
    page.write("pictures/false.png", "no image\n")
    page.write("manual.pdf", PDF)
    page.write("large.txt", "a line of a large text\n" * 20000)
    page.write("bytes.bin", bytes(range(256)))
    page.write("empty.txt", "")
    page.write("gone/letter-lost.txt", "Dear all,\n")
    os.unlink(os.path.join(page.directory, "gone/letter-lost.txt"))
    os.rmdir(os.path.join(page.directory, "gone"))
    page.write("odd/<script>alert(1)<script>.txt", "script\n")
    page.write("odd/two\nlines.txt", "newline\n")
    page.write("odd/\u202egnp.exe", "turned\n")
    page.write(b"odd/caf\xe9.txt", "latin one\n")
    page.write(b"odd/caf\xe9.txt", "latin two\n")
    page.write(b"odd/d\xff/in.txt", "inside\n")
    page.write("odd/100% #1?.txt", "signs\n")


def browse(page):
    page.open()
    page.row("docs").click()
    page.row("report.txt")
    assert page.all("h1")[0].text == "docs", "the heading is the folder"
    assert "31 B" in page.text("tbody"), f"sizes are shown, not {page.text('tbody')}"
    page.driver.back()
    page.row("pictures")
    page.clean()
    page.shot("browse")


def before_later(page):
    """Goes back, change by change, until later.txt is not there yet."""
    for _ in range(9):
        if "later.txt" not in page.text("#listing"):
            return
        before = page.driver.current_url
        page.click("#earlier")
        wait("an earlier time", lambda: page.driver.current_url != before)
        wait("the listing of then", lambda: not page.all("#listing[aria-busy]"))
    raise AssertionError("later.txt is there however far back the buttons lead")


def time_travel(page):
    page.open("/docs")
    page.row("later.txt")
    page.shows("#time-label", "Now")
    first = page.driver.current_url
    page.click("#earlier")
    page.lacks("#time-label", "Now")
    assert "at=" in page.driver.current_url, "the time is in the address"
    # The last change is the write of later.txt; the creation and what came before are further back.
    before_later(page)
    page.row("report.txt")
    page.shot("past")
    linked = page.driver.current_url
    page.click("#later")
    page.shows("#listing", "later.txt")
    page.slide(1)
    page.shows("#main", "no file or directory")
    page.slide("now")
    page.shows("#time-label", "Now")
    page.shows("#listing", "later.txt")
    page.driver.get(linked)
    page.row("report.txt")
    assert "later.txt" not in page.text("#listing"), "a link leads to the same time"
    page.driver.get(first)
    page.shows("#listing", "later.txt")
    typed = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 40 * 365 * 86400))
    page.driver.execute_script(
        "const t = document.getElementById('time-typed'); t.value = arguments[0]; t.dispatchEvent(new Event('change'));", typed
    )
    page.shows("#listing", "othing was catalogued at that time")
    page.clean("404")


def versions(page):
    page.open("/docs")
    page.row("report.txt").click()
    page.shows(".preview", "four <b>bold</b>")
    assert not page.all(".preview b"), "content is text and never markup"
    assert len(page.all(".versions li")) == 3, f"three versions, not {page.text('.versions')}"
    newest = page.text(".versions li:first-child")
    for part in ("current", "+17 B", "root", "python3"):
        assert part in newest, f"the timeline says {part!r}: {newest}"
    page.shot("versions")
    page.click(".versions li:last-child a")
    page.shows(".preview", "two")
    page.lacks(".preview", "four")
    assert "version=1" in page.driver.current_url, "the version is in the address"
    page.driver.back()
    page.shows(".preview", "four")
    page.clean()


def previews(page):
    page.open("/pictures/red.png", "?view=file")
    wait(
        "the image is drawn",
        lambda: page.driver.execute_script("return document.querySelector('.content img')?.naturalWidth") == 40,
    )
    page.shot("image")
    page.open("/pictures/false.png", "?view=file")
    page.shows(".content", "no image that can be shown")
    page.open("/large.txt", "?view=file")
    page.shows(".content", "The first 256 KiB of")
    page.open("/bytes.bin", "?view=file")
    page.shows(".content", "no text")
    page.open("/empty.txt", "?view=file")
    page.shows(".content", "empty")
    page.open("/manual.pdf", "?view=file")
    frame = page.one(".content iframe")
    assert frame.get_attribute("src").startswith("blob:"), "a PDF is framed from its bytes"
    page.clean()
    page.shot("pdf")


def differences(page):
    page.open("/docs/report.txt", "?view=file")
    page.click("#tab-compare")
    page.shows(".diff .come", "four <b>bold</b>")
    page.driver.execute_script(
        "const s = document.getElementById('pick-from'); s.value = '1'; s.dispatchEvent(new Event('change'));"
    )
    page.shows(".diff .gone", "two")
    page.shows(".diff .come", "TWO")
    assert "from=1" in page.driver.current_url, "the comparison is in the address"
    page.shot("diff")
    page.clean()


def restoring(page):
    page.open("/docs/report.txt", "?view=file&version=1")
    page.shows(".preview", "two")
    page.click("#restore")
    page.shows("dialog", "Bring back the content")
    page.shows("dialog", "docs/report.txt")
    assert "four" in page.read("docs/report.txt"), "looking at what will happen changes nothing"
    page.shot("restore")
    page.click("#confirm")
    page.shows("#key-why", "key")
    page.shot("key")
    page.press("horace_0000", Keys.ENTER)
    page.shows("#key-why", "no such key")
    page.press(page.key, Keys.ENTER)
    page.shows("#outcome", "Done")
    assert page.read("docs/report.txt") == "one\ntwo\nthree\n", "the file has its old content"
    page.press(Keys.ESCAPE)
    wait("the dialog is closed", lambda: not page.all("dialog"))
    page.shows(".versions li:first-child", "Version 4")
    kept = page.driver.execute_script("return [localStorage.length, document.cookie, sessionStorage.length]")
    assert kept == [0, "", 1], f"the key is in the session's storage only: {kept}"
    page.clean("401", "403")


def marking(page):
    page.open("/docs/report.txt", "?view=file&version=2")
    page.click("#mark-pin")
    page.shows(".versions [aria-current]", "pinned")
    page.one("#note").send_keys("the good one", Keys.ENTER)
    page.shows(".versions [aria-current] q", "the good one")
    page.click("#mark-unpin")
    page.lacks(".versions [aria-current]", "pinned")
    page.clean()


def rewinding(page):
    page.open("/docs")
    page.row("later.txt")
    before_later(page)
    wait("a button", lambda: next((b for b in page.all("button") if b.text == "Rewind…"), None)).click()
    page.shows("dialog .steps", "later.txt")
    page.shows("dialog .steps", "Move into history")
    page.shot("rewind")
    page.press(Keys.ESCAPE)
    wait("Esc closes the dialog", lambda: not page.all("dialog"))
    assert page.read("docs/later.txt") == "came later\n", "a preview changes nothing"
    page.clean()


def searching(page):
    page.open()
    page.row("docs")
    page.press("/")
    assert page.focus() == "q", "`/` goes to the search field"
    page.press("repo")
    page.row("report.txt")
    page.press("rt")
    page.row("report.txt")
    wait("the search is in the address", lambda: "q=report" in page.driver.current_url)
    page.row("report.txt")
    page.one("#q").clear()
    page.one("#q").send_keys("letter-lost")
    page.shows("#main", "No name matches")
    page.click("#deleted")
    page.row("letter-lost.txt")
    page.shot("search")
    wait("a button", lambda: next((b for b in page.all(".list button") if "Undelete" in b.text), None)).click()
    page.shows("dialog .steps", "letter-lost.txt")
    assert not os.path.exists(os.path.join(page.directory, "gone/letter-lost.txt")), "nothing is back yet"
    page.click("#confirm")
    page.shows("#outcome", "Done")
    assert page.read("gone/letter-lost.txt") == "Dear all,\n", "the file is back"
    page.press(Keys.ESCAPE)
    page.shows(".preview", "Dear all,")
    page.clean()


def watching(page):
    page.open("", "?view=activity")
    page.shows("#live", "Live")
    page.write("live-one.txt", "1\n")
    page.shows(".activity", "live-one.txt")
    page.shot("activity")
    page.click("#pause")
    page.shows("#live", "Paused")
    page.write("live-two.txt", "2\n")
    page.shows("#live", "new change")
    assert "live-two.txt" not in page.text(".activity"), "nothing new while it is paused"
    page.click("#pause")
    page.shows(".activity", "live-two.txt")
    page.click(".activity tbody tr:first-child button")
    page.shows("dialog .steps", "live-two.txt")
    page.press(Keys.ESCAPE)
    assert page.read("live-two.txt") == "2\n", "a preview of an undo changes nothing"
    page.clean()


def spacious(page):
    page.write("twice/one", "the same bytes" * 1000)
    page.write("twice/two", "the same bytes" * 1000)
    page.open("", "?view=space")
    wait("the sums", lambda: "folders" in page.text("#space-sum"))
    assert "twice" in page.text("#space-entries tbody"), page.text("#space-entries")
    assert "python3, root" in page.text("#space-writers tbody"), page.text("#space-writers")
    page.one("#space-look").click()
    wait("the duplicates", lambda: "13.7 KiB could be freed" in page.text("#space-twice"))
    assert "/twice" in page.text("#space-twice a"), page.text("#space-twice a")
    page.shot("space")
    page.driver.execute_script(
        "const s = document.getElementById('space-span'); s.value = '1d'; s.dispatchEvent(new Event('change'));"
    )
    wait("what has grown", lambda: "+27.3 KiB" in page.text("#space-entries tbody"))
    page.shot("space-grown")
    next(link for link in page.all("#space-entries a") if "twice" in link.text).click()
    wait("the folder", lambda: "Space in" in page.text("h1") and "one" in page.text("#space-entries tbody"))
    page.clean()


def healthy(page):
    page.open("", "?view=health")
    page.shows("#state", "All is well")
    page.shows(".cards", "Versions")
    page.one(".chart path.line")
    page.click("#compare")
    page.shows(".cards", "Looked at")
    page.shot("health")
    page.clean("403")


def without_snapshots(page):
    page.open("", "?view=snapshots")
    page.shows("#snapshots-none", "has no snapshots that could be taken here")
    assert not page.all("#main button"), "nothing can be done"
    page.shot("snapshots-none")
    page.clean()


def takes_snapshots(page):
    for name in ("goes.txt", "moves.txt", "kept.txt"):
        page.write(name, "old\n")
    page.open("", "?view=snapshots")
    page.shows("#snapshots-list .foot", "1 snapshot, the newest first")
    page.shows("#snapshots-schedule tbody", "yearly")
    page.click("#snapshots-take")
    page.shows("#key-why", "admin")
    page.press(page.key, Keys.ENTER)
    page.shows("#snapshots-list tbody tr:first-child", "hourly-")
    page.shows("#status", "was taken")
    assert page.focus() == "Take one", f"the focus stays where it was, not on {page.focus()!r}"
    page.write("new.txt", "new\n")
    page.write("odd/<b>bold.txt", "b")
    page.write("kept.txt", "longer than before\n")
    os.rename(os.path.join(page.directory, "moves.txt"), os.path.join(page.directory, "moved.txt"))
    os.unlink(os.path.join(page.directory, "goes.txt"))
    page.choose("snapshots-class", "daily")
    page.click("#snapshots-take")
    page.shows("#snapshots-list tbody tr:first-child", "daily-")
    page.shows("#snapshots-list .foot", "3 snapshots")
    page.clean("403")


def compares_snapshots(page):
    page.open("", "?view=snapshots")
    page.click("#snapshots-list tbody tr:nth-child(2) a")
    page.shows("main tbody", "new.txt")
    shown = page.text("main tbody")
    for part in ("moved.txt", "/moves.txt", "goes.txt", "<b>bold.txt", "kept.txt", "+15 B"):
        assert part in shown, f"{part!r} is in {shown!r}"
    assert not page.all("main tbody b"), "names are text and never markup"
    page.shot("snapshots-diff")
    newest = page.one("#snapshot-to option:nth-child(2)").get_attribute("value")
    page.choose("snapshot-to", newest)
    page.shows("h1", "between")
    page.shows("main tbody", "new.txt")
    page.choose("snapshot-from", newest)
    page.shows(".foot", "Nothing has changed")
    page.driver.back()
    page.shows("main tbody", "new.txt")
    assert f"version={newest}" in page.driver.current_url, "the comparison is in the address"
    page.row("new.txt").click()
    page.shows(".preview", "new")
    page.open("", "?view=snapshots&from=nothing")
    page.shows("main .problem", "There is no snapshot `nothing`")
    page.clean("404")


def holds_and_prunes_snapshots(page):
    page.open("", "?view=snapshots")
    name = page.one("#snapshots-list tbody tr:nth-child(2) a").text
    hold = f"#hold-{name}"
    page.click(hold)
    page.shows(hold, "Release")
    page.shows("#snapshots-list tbody tr:nth-child(2)", "held")
    wait("the focus is on the button still", lambda: page.focus() == "Release")
    for there in (4, 5):
        page.click("#snapshots-take")
        page.shows("#snapshots-list .foot", f"{there} snapshots")
    page.shot("snapshots")
    page.click("#snapshots-prune")
    page.shows("dialog .sums", "1 of 5 snapshots")
    for part in ("held", "the newest"):
        page.shows("dialog .steps", part)
    page.shot("snapshots-prune")
    page.click("#confirm")
    page.shows("#outcome", "Done")
    page.press(Keys.ESCAPE)
    page.shows("#snapshots-list .foot", "4 snapshots")
    page.shows("#snapshots-list", "held")
    page.click(hold)
    page.lacks("#snapshots-list", "held")
    page.click("#snapshots-prune")
    page.shows("dialog .sums", "1 of 4 snapshots")
    page.press(Keys.ESCAPE)
    wait("Esc closes the dialog", lambda: not page.all("dialog"))
    page.shows("#snapshots-list .foot", "4 snapshots")
    page.clean()


def keyboard(page):
    page.open()
    page.row("docs")
    wait("a row has the focus", lambda: page.driver.execute_script("return document.activeElement.matches('[data-focus]')") or page.press(Keys.TAB))
    page.press(Keys.HOME)
    names = [link.text for link in page.all("#main [data-focus]")]
    page.press(*[Keys.ARROW_DOWN] * names.index("docs\n, folder") if "docs\n, folder" in names else ())
    while not page.focus().startswith("docs"):
        page.press(Keys.ARROW_DOWN)
        assert not page.focus().startswith(names[-1].split("\n")[0]), "the arrow keys lead to docs"
    page.press(Keys.ENTER)
    page.row("report.txt")
    wait("the focus is in the list", lambda: page.focus().startswith("later.txt"))
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    page.shows(".preview", "two")
    wait("the focus is on a version", lambda: page.focus().startswith("Version 4"))
    page.press(Keys.ARROW_DOWN, Keys.ENTER)
    page.shows(".preview", "four")
    outline = page.driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus can be seen"
    page.press(Keys.TAB, Keys.TAB, Keys.ENTER)
    page.shows(".diff .come", "four")
    assert page.focus() == "Compare", f"the focus stays where it was, not on {page.focus()!r}"
    page.clean()


def odd_names(page):
    page.open("/odd")
    for name in ("<script>alert(1)<script>.txt", "two\\nlines.txt", "⟨U+202E⟩gnp.exe", "caf\\xE9.txt", "100% #1?.txt"):
        page.row(name)
    page.shot("odd")
    for name, content in (("<script>", "script"), ("two\\n", "newline"), ("⟨U+202E⟩", "turned"), ("100%", "signs")):
        page.row(name).click()
        page.shows(".preview", content)
        page.driver.back()
        page.row("caf\\xE9")
    page.row("d\\xFF").click()
    page.row("in.txt").click()
    page.shows(".preview", "inside")
    page.driver.refresh()
    page.shows(".preview", "inside")
    page.open("/odd/caf%e9.txt", "?view=file&version=1")
    page.shows(".preview", "latin one")
    page.click("#restore")
    page.shows("dialog .steps", "caf\\xE9.txt")
    page.click("#confirm")
    page.shows("#outcome", "Done")
    with open(os.path.join(os.fsencode(page.directory), b"odd/caf\xe9.txt"), "rb") as file:
        assert file.read() == b"latin one\n", "a name that is not UTF-8 can be restored"
    page.press(Keys.ESCAPE)
    page.clean()


def many_files(page):
    for number in range(MANY):
        page.write(f"many/file-{number:05}.txt", "")
    begun = time.monotonic()
    page.open("/many")
    page.row("file-00000.txt")
    took = time.monotonic() - begun
    assert took < 5, f"the first rows of {MANY} take {took:.1f} s"
    rows = len(page.all("#main tbody tr"))
    assert rows < 150, f"a window of rows is in the page, not {rows}"

    def end():
        page.press(Keys.END)
        return f"file-{MANY - 1:05}" in page.text("#main tbody")

    page.press(Keys.HOME)
    wait("End leads to the last name", end)
    wait("the last row has the focus", lambda: page.focus().startswith(f"file-{MANY - 1:05}"))
    rows = len(page.all("#main tbody tr"))
    assert rows < 150, f"a window of rows is in the page still, not {rows}"
    page.shot("many")
    page.press(Keys.HOME)
    wait("Home leads back", lambda: page.focus().startswith("file-00000"))
    page.clean()


def phone(page):
    page.phone(True)
    views = {
        "browse": ("", ""),
        "odd": ("/odd", ""),
        "file": ("/docs/report.txt", "?view=file"),
        "diff": ("/docs/report.txt", "?view=file&version=3&from=1"),
        "search": ("", "?view=search&q=txt&deleted=1"),
        "activity": ("", "?view=activity"),
        "space": ("", "?view=space"),
        "snapshots": ("", "?view=snapshots"),
        "health": ("", "?view=health"),
    }
    fits(page, views)


def phone_with_snapshots(page):
    page.phone(True)
    oldest = page.one("#snapshots-list tbody tr:last-child a").text
    fits(page, {"snapshots-some": ("", "?view=snapshots"), "snapshots-diff": ("", f"?view=snapshots&from={oldest}")})


def fits(page, views):
    for name, (path, query) in views.items():
        page.open(path, query)
        page.one("h1")
        wait(f"{name} is there", lambda: not page.all("main[aria-busy]"))
        there = {"diff": ".diff .come", "file": ".preview", "health": ".card", "snapshots": "#snapshots-none"}
        page.one(there.get(name, "main tbody a"))
        width = page.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 360, f"{name} is {width} px wide on a phone of 360"
        page.shot(f"phone-{name}")
    page.phone(False)
    page.clean()


TESTS = (
    browse,
    time_travel,
    versions,
    previews,
    differences,
    restoring,
    marking,
    rewinding,
    searching,
    watching,
    spacious,
    healthy,
    without_snapshots,
    keyboard,
    odd_names,
    many_files,
    phone,
)

WITH_SNAPSHOTS = (takes_snapshots, compares_snapshots, holds_and_prunes_snapshots, phone_with_snapshots)


def main():
    tests, arguments = TESTS, sys.argv[1:]
    if arguments[:1] == ["--snapshots"]:
        tests, arguments = WITH_SNAPSHOTS, arguments[1:]
    if len(arguments) not in (3, 4):
        sys.exit(__doc__)
    if not os.path.exists(DRIVER) or not os.path.exists("/usr/bin/chromium"):
        print("SKIPPED: tests/page/test_page.py did not run: there is no chromium (package chromium-driver)")
        sys.exit(77)
    page = Page(*arguments[:3], arguments[3] if len(arguments) == 4 else None)
    try:
        fill(page)
        for test in tests:
            begun = time.monotonic()
            try:
                test(page)
            except BaseException:
                print(f"FAILED {test.__name__} at {page.driver.current_url}", flush=True)
                if page.shots:
                    page.driver.save_screenshot(os.path.join(page.shots, "failed.png"))
                for entry in page.driver.get_log("browser"):
                    print(f"  console: {entry['message']}")
                raise
            print(f"ok {test.__name__} ({time.monotonic() - begun:.1f} s)", flush=True)
    finally:
        page.driver.quit()
    print(f"all {len(tests)} passed")


if __name__ == "__main__":
    main()
