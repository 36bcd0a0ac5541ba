"use strict";
/* reveal.js runs the deck where the page names its place; without it these lines do */
const place = document.documentElement.dataset.reveal;
const loaded = new Promise((done) => {
  if (place === undefined) { done(false); return; }
  const script = document.createElement("script");
  script.src = `${place}/reveal.js`;
  script.onload = () => done(true);
  script.onerror = () => done(false);
  document.head.append(script);
});

function alone() {
  const sections = [...document.querySelectorAll("section")];
  let at = 0;
  const fragments = () => [...sections[at].querySelectorAll(".fragment")];
  function show(n, whole) {
    at = Math.max(0, Math.min(sections.length - 1, n));
    sections.forEach((s, k) => s.classList.toggle("present", k === at));
    fragments().forEach((f) => f.classList.toggle("visible", whole));
    document.getElementById("place").textContent = `${at + 1} of ${sections.length}`;
    history.replaceState(null, "", `#/${at}`);
  }
  function next() {
    const hidden = fragments().find((f) => !f.classList.contains("visible"));
    if (hidden) hidden.classList.add("visible");
    else if (at < sections.length - 1) show(at + 1, false);
  }
  function back() {
    const seen = fragments().filter((f) => f.classList.contains("visible")).pop();
    if (seen) seen.classList.remove("visible");
    else if (at) show(at - 1, true);
  }
  document.documentElement.classList.add("alone");
  addEventListener("keydown", (e) => {
    const act = { ArrowRight: next, " ": next, PageDown: next, Enter: next, ArrowLeft: back, PageUp: back, Home: () => show(0, false),
      End: () => show(sections.length - 1, true) }[e.key];
    if (act && !e.altKey && !e.ctrlKey && !e.metaKey) { act(); e.preventDefault(); }
  });
  addEventListener("click", (e) => { if (!e.target.closest("a")) (e.clientX < innerWidth / 3 ? back : next)(); });
  show(+location.hash.replace("#/", "") || 0, false);
}

loaded.then((found) => found ? Reveal.initialize({ hash: true, width: 1280, height: 720 }) : alone());
