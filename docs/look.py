"""Opens every page of the built docs in a headless Chromium, light and dark, wide and on a phone, and says what is wrong there.

    python docs/look.py [build/docs]     exit code 1 where a page complains, asks the network, is cut, or has parts that overlap
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tinyrnn_tests import browser

SCREENS = {"wide": {"viewport": {"width": 1280, "height": 720}},
           "wide, dark": {"viewport": {"width": 1280, "height": 720}, "color_scheme": "dark"},
           "phone": {"viewport": {"width": 390, "height": 800}, "is_mobile": True},
           "phone, dark": {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "color_scheme": "dark"}}
FAULTS = """() => {
  const bad = [], root = document.documentElement;
  if (root.scrollWidth > root.clientWidth + 1) bad.push(`the page is ${root.scrollWidth} wide, the screen ${root.clientWidth}`);
  for (const e of document.querySelectorAll("div.highlight pre"))
    if (e.scrollWidth > e.clientWidth + 1) bad.push(`code is cut: ${e.textContent.slice(0, 40)}`);
  for (const i of document.querySelectorAll("img"))
    if (i.complete && !i.naturalWidth) bad.push(`no picture ${i.getAttribute("src")}`);
  const parts = [...document.querySelectorAll("article > section > *, article > section > section > *")]
    .filter((e) => e.tagName !== "SECTION");
  const boxes = parts.map((e) => [e, e.getBoundingClientRect()]).filter(([, r]) => r.width && r.height);
  boxes.forEach(([e, r], i) => {
    const next = boxes[i + 1];
    if (next && next[1].top < r.bottom - 1.5) bad.push(`${e.tagName} "${e.textContent.slice(0, 30)}" overlaps what follows`);
  });
  return bad;
}"""


def main(folder: Path) -> int:
    pages = sorted(p for p in folder.rglob("*.html") if "_static" not in p.parts)
    if not pages:
        print(f"there is no page in {folder}: run make docs")
        return 1
    wrong = 0
    for screen, options in SCREENS.items():
        with browser.opened(pages[0].as_uri(), **options) as tab:
            for page in pages:
                tab.requests.clear()
                tab.complaints.clear()
                tab.goto(page.as_uri())
                faults = [*tab.evaluate(FAULTS), *tab.complaints, *(r for r in tab.requests if not r.startswith("file:"))]
                for fault in faults:
                    print(f"{page.relative_to(folder)} ({screen}): {fault}")
                wrong += bool(faults)
    print(f"{len(pages)} pages on {len(SCREENS)} screens, {wrong or 'none'} with faults")
    return int(wrong > 0)


if __name__ == "__main__":
    if browser.find() is None:
        print("there is no Chromium here: the pages were not looked at")
        sys.exit(0)
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs").resolve()))
