"use strict";
const pages = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, text, cls) => {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  return e;
};
let page, svg, at = 0, chosen = "";

/* numbers */
const short = (x) => x === null ? "not finite" : x === 0 ? "0" : Math.abs(x) >= 1e-3 && Math.abs(x) < 1e4 ? String(+x.toPrecision(3)) : x.toExponential(1);
const norm = (x) => x === null || x === undefined ? "none" : x === "inf" ? "not finite" : x === 0 ? "0" : x.toExponential(3);
const isMatrix = (a) => Array.isArray(a) && Array.isArray(a[0]);

function heat(caption, array) {
  const box = make("div");
  box.append(make("p", caption, "note"));
  if (!array) { box.append(make("p", "not shown: too many entries, or none")); return box; }
  const rows = isMatrix(array) ? array : [Array.isArray(array) ? array : [array]];
  const most = Math.max(...rows.flat().map(Math.abs), 1e-300);
  const table = make("table", undefined, "heat");
  table.setAttribute("aria-label", caption);
  for (const row of rows) {
    const tr = make("tr");
    for (const v of row) {
      const td = make("td", short(v));
      const share = Math.min(Math.abs(v) / most, 1) * 0.55;
      td.style.background = v >= 0 ? `rgba(213,94,0,${share})` : `rgba(0,114,178,${share})`;
      tr.append(td);
    }
    table.append(tr);
  }
  box.append(table);
  return box;
}

/* the picture */
const node = (id) => svg.getElementById ? svg.querySelector(`#${CSS.escape(svg.id + "-" + id)}`) : null;
const bare = (id) => id.slice(svg.id.length + 1);

function reveal() {
  for (const n of svg.querySelectorAll(".node")) {
    const id = bare(n.id), first = page.forward[id];
    n.classList.toggle("todo", first !== undefined && first > at);
    n.classList.remove("on", "back");
    n.tabIndex = -1;
  }
  for (const w of svg.querySelectorAll(".wire")) {
    const from = bare(w.dataset.from), to = bare(w.dataset.to);
    const when = w.classList.contains("backward") ? page.backward[from] : page.forward[to];
    w.classList.toggle("todo", when !== undefined && when > at);
  }
  const stop = page.stops[at - 1];
  const here = node(stop ? stop.node : page.stops[0].node);
  if (here) here.tabIndex = 0;
  if (stop && here) {
    here.classList.add("on");
    here.classList.toggle("back", stop.direction === "b");
  }
}

function scroll() {
  const stop = page.stops[at - 1], here = stop && node(stop.node);
  if (!here) return;
  const box = $("picture"), a = here.getBoundingClientRect(), b = box.getBoundingClientRect();
  if (a.left < b.left + 20 || a.right > b.right - 20) box.scrollLeft += a.left - b.left - b.width / 2;
}

/* what is said about a stop */
function say() {
  const stop = page.stops[at - 1], box = $("stop");
  box.replaceChildren();
  if (!stop) {
    $("message").textContent = `start: ${page.stops.length} stops; press → to compute the first value`;
    return;
  }
  $("message").textContent = stop.direction === "L" ? `the loss: L = ${short(page.loss)}` :
    stop.direction === "f" ? `forward ${at} of ${page.stops.length}: compute ${stop.name}` :
    `backward ${at} of ${page.stops.length}: ∂L/∂${stop.name}, norm ${norm(stop.norm)}`;
  const columns = make("div", undefined, "columns");
  box.append(columns);
  const left = make("div"), right = make("div");
  columns.append(left, right);
  if (stop.shape !== undefined) left.append(make("p", `${stop.name} = ${stop.says}, shape [${stop.shape}]` + (page.rows > 1 ? `, row 1 of ${page.rows}` : ""), "note"));
  for (const k of stop.formulas || []) {
    const f = page.formulas[k], line = make("div", undefined, "formula");
    left.append(make("h2", f.what));
    line.append(document.importNode(parsed(f.mathml), true));
    left.append(line);
  }
  const row = page.rows > 1 ? ", row 1" : "", rows = page.rows > 1 ? " over all rows" : "";
  if (stop.value !== undefined) right.append(heat(`value of ${stop.name}${row}`, stop.value));
  if (stop.direction === "b") {
    right.append(heat(`gradient ∂L/∂${stop.name}${row}; norm${rows} ${norm(stop.norm)}`, stop.gradient));
    right.append(list("arrives from", stop.from), list("is sent on to", stop.to));
  }
  if (chosen) right.append(sum());
}

function list(title, entries) {
  const box = make("div");
  box.append(make("h2", title));
  const ul = make("ul");
  for (const [name, value] of entries || []) ul.append(make("li", `${name}: norm ${norm(value)}`));
  if (!ul.children.length) ul.append(make("li", "nothing"));
  box.append(ul);
  return box;
}

const cache = new Map();
function parsed(text) {
  if (!cache.has(text)) cache.set(text, new DOMParser().parseFromString(text, "application/xml").documentElement);
  return cache.get(text);
}

/* the running sum of a parameter's gradient */
function accumulated(name) {
  const parts = page.parameters[name].parts.filter((p) => p.stop <= at);
  const last = parts.length ? parts[parts.length - 1] : null;
  return { parts, last };
}

function sum() {
  const box = make("div"), { parts, last } = accumulated(chosen), all = page.parameters[chosen];
  box.append(make("h2", `∂L/∂${chosen} so far`));
  if (!last) { box.append(make("p", "no step has sent its part yet")); return box; }
  box.append(make("p", `parts of ${parts.length} of ${all.parts.length} steps; the last, of step ${last.step}, has norm ${norm(last.norm)}; ` +
    `the sum has norm ${norm(last.total)} (in the end ${norm(all.parts[all.parts.length - 1].total)})`));
  box.append(heat(`sum of the parts of ${parts.length} steps`, last.sum));
  return box;
}

/* paths */
function unmark() {
  svg.classList.remove("marking");
  for (const e of svg.querySelectorAll(".marked")) e.classList.remove("marked");
}

function mark(ids, wire) {
  svg.classList.add("marking");
  for (const id of ids) { const n = node(id); if (n) n.classList.add("marked"); }
  for (const w of svg.querySelectorAll(".wire")) if (wire(bare(w.dataset.from), bare(w.dataset.to))) w.classList.add("marked");
}

function strongest() {
  const ids = new Set(page.strongest.flat()), pairs = new Set();
  for (const path of page.strongest) path.forEach((id, i) => { if (i) { pairs.add(path[i - 1] + " " + id); pairs.add(id + " " + path[i - 1]); } });
  mark(ids, (a, b) => pairs.has(a + " " + b));
}

function reach(start, next) {
  const seen = new Set([start]), todo = [start];
  while (todo.length) for (const n of next.get(todo.pop()) || []) if (!seen.has(n)) { seen.add(n); todo.push(n); }
  return seen;
}

function through(name) {
  const up = new Map(), down = new Map();
  for (const [a, b] of page.edges) {
    if (!up.has(a)) up.set(a, []);
    if (!down.has(b)) down.set(b, []);
    up.get(a).push(b); down.get(b).push(a);
  }
  const ids = new Set();
  for (const id of page.states[name]) for (const side of [reach(id, up), reach(id, down)]) for (const n of side) ids.add(n);
  mark(ids, (a, b) => ids.has(a) && ids.has(b));
}

function marks() {
  unmark();
  if ($("strong").checked) strongest();
  else if ($("through").value) through($("through").value);
}

/* controls */
function show(n, quiet) {
  at = Math.max(0, Math.min(page.stops.length, n));
  $("slider").value = at;
  const stop = page.stops[at - 1];
  $("time").value = stop && stop.step ? stop.step : at ? page.steps : 1;
  $("slider").setAttribute("aria-valuetext", stop ? stop.name : "start");
  reveal();
  say();
  if (!quiet) scroll();
}

function toStep(t) {
  const back = at > 0 && page.stops[at - 1].direction === "b";
  const i = page.stops.findIndex((s) => s.step === t && s.direction === (back ? "b" : "f"));
  if (i >= 0) show(i + 1);
}

function choose(name) {
  chosen = name in page.parameters ? name : "";
  $("parameter").value = chosen;
  say();
}

function options(select, names) {
  select.replaceChildren(select.options[0]);
  for (const n of names) { const o = make("option", n); o.value = n; select.append(o); }
}

function open(i) {
  page = pages[i];
  document.querySelectorAll(".layer").forEach((e, k) => { e.hidden = k !== i; });
  svg = document.querySelectorAll(".layer")[i].querySelector("svg");
  $("slider").max = page.stops.length;
  $("time").max = page.steps;
  options($("parameter"), Object.keys(page.parameters));
  options($("through"), Object.keys(page.states));
  chosen = "";
  $("strong").checked = false;
  marks();
  show(0, true);
}

$("next").onclick = () => show(at + 1);
$("previous").onclick = () => show(at - 1);
$("slider").oninput = (e) => show(+e.target.value);
$("time").oninput = (e) => toStep(+e.target.value);
$("parameter").onchange = (e) => choose(e.target.value);
$("strong").onchange = () => { $("through").value = ""; marks(); };
$("through").onchange = () => { $("strong").checked = false; marks(); };
if ($("layer")) $("layer").onchange = (e) => open(+e.target.value);
$("picture").addEventListener("click", (e) => {
  const word = e.target.closest("[data-parameter]");
  const name = word && word.dataset.parameter in page.parameters ? word.dataset.parameter : "";
  if (name) { choose(name); return; }
  const n = e.target.closest(".node");
  if (n) toNode(bare(n.id));
});
function toNode(id) {
  const back = at > 0 && page.stops[at - 1].direction !== "f";
  const i = page.stops.findIndex((s) => s.node === id && s.direction === (back ? "b" : "f"));
  const any = i >= 0 ? i : page.stops.findIndex((s) => s.node === id);
  if (any >= 0) show(any + 1);
}
document.addEventListener("keydown", (e) => {
  const typing = e.target.tagName === "SELECT" || e.target.type === "range";
  if ((e.key === "Enter" || e.key === " ") && e.target.classList && e.target.classList.contains("node")) { toNode(bare(e.target.id)); e.preventDefault(); }
  if (typing || e.altKey || e.ctrlKey || e.metaKey) return;
  const move = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: page.stops.length }[e.key];
  if (move !== undefined) { show(move); e.preventDefault(); }
});
open(0);

/* every stop of every layer, looked at by the page itself: page.html#selftest */
if (location.hash === "#selftest") {
  const bad = [];
  pages.forEach((p, i) => {
    open(i);
    for (const name of Object.keys(page.parameters)) choose(name);
    for (let n = 0; n <= page.stops.length; n++) {
      show(n, true);
      if (svg.querySelectorAll(".on").length !== (n ? 1 : 0)) bad.push(`stop ${n}: ${svg.querySelectorAll(".on").length} marked`);
      if (n && !$("message").textContent) bad.push(`stop ${n}: nothing said`);
    }
    if (svg.querySelectorAll(".todo").length) bad.push(`${svg.querySelectorAll(".todo").length} parts hidden at the end`);
    $("strong").checked = true; marks();
    const known = new Set(page.edges.flatMap(([a, b]) => [a + " " + b, b + " " + a]));
    for (const path of page.strongest) path.forEach((id, k) => {
      if (!node(id)) bad.push(`the strongest path goes through ${id}, which is not there`);
      if (k && !known.has(path[k - 1] + " " + id)) bad.push(`the strongest path jumps from ${path[k - 1]} to ${id}`);
    });
    if (page.strongest.length && !svg.querySelector(".node.marked")) bad.push("the strongest path marks nothing");
    $("strong").checked = false;
    for (const s of Object.keys(page.states)) {
      $("through").value = s; marks();
      if (!svg.querySelector(".node.marked")) bad.push(`no path through ${s}`);
    }
    $("through").value = ""; marks(); show(0, true);
  });
  open(0);
  document.documentElement.dataset.selftest = bad.length ? "FAIL " + bad.slice(0, 5).join("; ") : `PASS ${pages.map((p) => p.stops.length).join("+")} stops`;
} else if (location.hash.startsWith("#stop=")) show(+location.hash.slice(6));
