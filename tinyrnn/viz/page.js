"use strict";
const { pictures: pages, formulas: known } = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, text, cls) => {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (cls) e.className = cls;
  return e;
};
let page, svg, at = 0, chosen = "", playing = 0;

/* numbers */
const powers = (n) => String(n).replace(/[-\d]/g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
function short(x) {
  if (x === null || x === undefined || x === "inf") return "not finite";
  const [mantissa, exponent] = x.toPrecision(3).split("e");
  const small = x !== 0 && Math.abs(x) < 1e-4;
  const text = exponent || small ? `${+x.toExponential(2).split("e")[0]}·10${powers(+x.toExponential(2).split("e")[1])}` : String(+mantissa);
  return text.replace("-", "−");
}
const isArray = Array.isArray;
const single = (a) => typeof a === "number" ? a : isArray(a) && a.length === 1 && !isArray(a[0]) ? a[0] : null;
/* a signed number where there is one, a few of them, or how large many are */
function amount(array, norm) {
  const one = single(array);
  if (one !== null) return short(one);
  if (isArray(array) && !isArray(array[0]) && array.length && array.length <= 4) return `[${array.map(short).join(", ")}]`;
  return norm === null || norm === undefined ? "nothing" : norm === 0 ? "0" : `of length ${short(norm)}`;
}

function table(caption, array) {
  const box = make("div");
  box.append(make("p", caption, "note"));
  if (!isArray(array) && typeof array !== "number") { box.append(make("p", "not shown: too many numbers, or not finite")); return box; }
  const rows = isArray(array) && isArray(array[0]) ? array : [isArray(array) ? array : [array]];
  const most = Math.max(...rows.flat().map(Math.abs), 1e-300), grid = make("table", undefined, "heat");
  grid.setAttribute("aria-label", caption);
  for (const row of rows) {
    const tr = make("tr");
    for (const v of row) {
      const td = make("td", short(v));
      td.style.background = tint(v, most, 0.5);
      tr.append(td);
    }
    grid.append(tr);
  }
  box.append(grid);
  return box;
}
const tint = (v, most, deepest) => `rgba(${v >= 0 ? "213,94,0" : "0,114,178"},${Math.min(Math.abs(v) / most, 1) * deepest})`;

/* the picture */
const node = (id) => svg.querySelector(`#${CSS.escape(svg.id + "-" + id)}`);
const bare = (id) => id.slice(svg.id.length + 1);

function reveal() {
  for (const n of svg.querySelectorAll(".node")) {
    const id = bare(n.id), first = page.forward[id], last = page.backward[id];
    if (first === undefined) continue;
    n.classList.toggle("todo", first > at);
    n.classList.toggle("ahead", first <= at && (last > at || id === "loss"));
    n.classList.remove("on", "back");
    n.tabIndex = -1;
    const stop = page.stops[first - 1], shape = n.querySelector("path,polygon,ellipse,rect");
    const tone = first <= at && last > at && stop.tone != null && stop.tone !== "inf";
    shape.style.setProperty("fill", tone ? tint(stop.tone, page.brightest, 0.45) : "", tone ? "important" : "");
  }
  for (const w of svg.querySelectorAll(".wire")) {
    const { from, to } = w.dataset;
    const when = w.classList.contains("backward") ? page.backward[from] : page.forward[to];
    w.classList.toggle("todo", when !== undefined && when > at);
  }
  const stop = page.stops[at - 1], here = node(stop ? stop.node : page.stops[0].node);
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
  if (a.left < b.left + 40 || a.right > b.right - 40) box.scrollLeft += (a.left + a.right) / 2 - b.left - b.width / 2;
  if (a.top < b.top + 20 || a.bottom > b.bottom - 90) box.scrollTop += (a.top + a.bottom) / 2 - b.top - b.height / 2;
}

/* what stands beside the box: its name and its number, or the line with the numbers put in */
function beside() {
  const stop = page.stops[at - 1], here = stop && node(stop.node), card = $("card");
  card.hidden = !here;
  if (!here) return;
  card.replaceChildren(...(stop.lines && stop.lines.length ? stop.lines : [stop.direction === "L" ? `L = ${short(page.loss)}` :
    stop.direction === "f" ? `${stop.name} = ${value(stop)}` : `∂L/∂${stop.name} = ${amount(stop.gradient, stop.norm)}`]).map((t) => make("p", t)));
  card.classList.toggle("back", stop.direction === "b");
  const box = $("picture"), a = here.getBoundingClientRect(), b = box.getBoundingClientRect();
  const wide = Math.min(card.offsetWidth, b.width - 16);
  const left = Math.max(8, Math.min(a.left - b.left, b.width - wide - 24));
  const below = a.bottom - b.top + 8, above = a.top - b.top - card.offsetHeight - 8;
  const top = below + card.offsetHeight < b.height || above < 0 ? below : above;
  card.style.left = `${left + box.scrollLeft}px`;
  card.style.top = `${top + box.scrollTop}px`;
}
const value = (stop) => amount(stop.value, null) === "nothing" ? "(not shown)" : amount(stop.value, null);

/* what is said about a stop */
const captions = () => new Map(page.guide);
function headline(stop) {
  if (!stop) return `start: ${page.stops.length} stops, ${page.guide.length} of them on the guided path; press → for the first`;
  const where = stop.step ? `, t = ${stop.step}` : "";
  if (stop.direction === "L") return `the loss: ${stop.lines && stop.lines.length ? stop.lines[0] : `L = ${short(page.loss)}`}`;
  const line = stop.lines && stop.lines.length ? stop.lines[stop.lines.length - 1] : stop.direction === "f" ? `${stop.name} = ${value(stop)}` :
    `∂L/∂${stop.name} = ${amount(stop.gradient, stop.norm)}`;
  return `${stop.direction === "f" ? "forward" : "backward"} ${at} of ${page.stops.length}${where}: ${line}`;
}

function say() {
  const stop = page.stops[at - 1], box = $("stop"), caption = captions().get(at);
  box.replaceChildren();
  $("message").textContent = headline(stop);
  if (caption) box.append(make("p", caption, "caption"));
  if (!stop) { box.append(...weights(Object.keys(page.parameters).filter((k) => !chosen || k === chosen))); return; }
  const row = page.rows > 1 ? `, row 1 of ${page.rows}` : "", lines = (stop.lines || []).slice(0, -1);
  for (const t of lines) box.append(make("p", t, "line"));
  const plain = !(stop.lines && stop.lines.length);
  if (stop.direction === "f" && plain && !told(stop.value)) box.append(table(`${stop.name} = ${stop.says}${row}`, stop.value));
  if (stop.direction === "f" && plain && stop.argument) box.append(quantity(...stop.argument));
  if (stop.direction === "b") {
    if (plain && !told(stop.gradient)) box.append(table(`∂L/∂${stop.name}${row}`, stop.gradient));
    if (plain && stop.delta) box.append(quantity(...stop.delta));
    if (stop.from.length > 1) box.append(list("it is the sum of", stop.from));
    else if (stop.from.length) box.append(make("p", `all of it comes from ${stop.from[0][0]}`));
    else box.append(make("p", "nothing reads it that leads to the loss"));
    if (stop.to.length) box.append(make("p", `sent on to ${stop.to.join(", ")}`));
  }
  if (chosen) box.append(sum());
  else if (stop.weights && stop.direction === "f" && plain) box.append(...weights(stop.weights));
  if (stop.formulas) box.append(formulas(stop));
}

const told = (array) => amount(array, null) !== "nothing";
const quantity = (name, array) => told(array) ? make("p", `${name} = ${amount(array, null)}`, "line") : table(name, array);

function formulas(stop) {
  const box = make("details"), wanted = stop.direction === "f" ? "forward" : "";
  box.append(make("summary", "formulas"));
  box.open = formulas.open;
  box.ontoggle = () => { formulas.open = box.open; };
  for (const k of stop.formulas) {
    const f = known[k], line = make("div", undefined, "formula");
    if (wanted && f.what !== wanted) continue;
    box.append(make("h2", f.what));
    line.append(document.importNode(parsed(f.mathml), true));
    box.append(line);
  }
  return box;
}
formulas.open = true;

const weights = (names) => names.filter((k) => k in page.parameters).map((k) => {
  const one = single(page.parameters[k].value);
  return one === null && !(isArray(page.parameters[k].value) && page.parameters[k].value.flat().length === 1) ? table(k, page.parameters[k].value)
    : make("p", `${k} = ${short(one === null ? page.parameters[k].value.flat()[0] : one)}`, "line");
});

function list(title, entries) {
  const box = make("div"), ul = make("ul");
  box.append(make("h2", title));
  for (const [name, array, norm] of entries) ul.append(make("li", `${name}: ${amount(array, norm)}`));
  box.append(ul);
  return box;
}

const cache = new Map();
function parsed(text) {
  if (!cache.has(text)) cache.set(text, new DOMParser().parseFromString(text, "application/xml").documentElement);
  return cache.get(text);
}

/* a parameter, and the running sum of its gradient */
function sum() {
  const box = make("div"), all = page.parameters[chosen].parts, parts = all.filter((p) => p.stop <= at);
  box.append(...weights([chosen]), make("h2", `∂L/∂${chosen} so far`));
  if (!all.length) { box.append(make("p", "it is not trained")); return box; }
  if (!parts.length) { box.append(make("p", "no step has sent its share yet")); return box; }
  const last = parts[parts.length - 1], one = single(last.sum) !== null || (isArray(last.sum) && last.sum.flat().length === 1);
  if (last.step && one) {
    box.append(make("p", `${parts.map((p) => short([p.part].flat(2)[0])).join(" + ").replaceAll("+ −", "− ")}${parts.length > 1 ? ` = ${short([last.sum].flat(2)[0])}` : ""}`, "line"));
  } else box.append(table(last.step ? `sum of the shares of ${parts.length} of ${all.length} steps` : "the whole gradient", last.sum));
  if (last.step) box.append(make("p", `shares of ${parts.length} of ${all.length} steps; the last is that of step ${last.step}`));
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
  for (const w of svg.querySelectorAll(".wire")) if (wire(w.dataset.from, w.dataset.to)) w.classList.add("marked");
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
  $("panel").scrollTop = 0;
  if (quiet) return;
  scroll();
  beside();
}

/* the next stop of the path that is chosen */
function after(step) {
  if ($("path").value === "all") return at + step;
  const stops = [0, ...page.guide.map(([n]) => n)];
  return step > 0 ? stops.find((n) => n > at) ?? at : stops.filter((n) => n < at).pop() ?? 0;
}

function play(on) {
  clearInterval(playing);
  playing = on ? setInterval(() => { const n = after(1); if (n === at || n > page.stops.length) play(false); else show(n); }, +$("speed").value) : 0;
  $("play").textContent = on ? "⏸ pause" : "▶ play";
  $("play").setAttribute("aria-label", on ? "pause" : "play");
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
  play(false);
  page = pages[i];
  document.querySelectorAll(".layer").forEach((e, k) => { e.hidden = k !== i; });
  svg = document.querySelectorAll(".layer")[i].querySelector("svg");
  $("slider").max = page.stops.length;
  $("time").max = page.steps;
  options($("parameter"), Object.keys(page.parameters));
  options($("through"), Object.keys(page.states));
  $("strong").disabled = !page.strongest.length;
  chosen = "";
  $("strong").checked = false;
  marks();
  show(0, true);
  $("card").hidden = true;
}

$("next").onclick = () => show(after(1));
$("previous").onclick = () => show(after(-1));
$("first").onclick = () => show(0);
$("play").onclick = () => { if (!playing && after(1) === at) show(0); play(!playing); };
$("speed").onchange = () => { if (playing) play(true); };
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
  const n = (back ? page.backward : page.forward)[id];
  if (n !== undefined) show(n);
}
document.addEventListener("keydown", (e) => {
  const typing = ["SELECT", "BUTTON", "SUMMARY"].includes(e.target.tagName) || e.target.type === "range";
  if ((e.key === "Enter" || e.key === " ") && e.target.classList && e.target.classList.contains("node")) { toNode(bare(e.target.id)); e.preventDefault(); }
  if ((typing && e.target.tagName !== "BUTTON") || e.altKey || e.ctrlKey || e.metaKey) return;
  if (e.key === "Escape") { $("card").hidden = true; return; }
  const move = { ArrowRight: after(1), ArrowLeft: after(-1), Home: 0, End: page.stops.length }[e.key];
  if (move !== undefined) { show(move); e.preventDefault(); }
});
addEventListener("resize", () => { if (at) beside(); });
open(0);

/* every stop of every picture, looked at by the page itself: page.html#selftest */
if (location.hash === "#selftest") {
  const bad = [];
  $("path").value = "all";
  pages.forEach((p, i) => {
    open(i);
    for (const name of Object.keys(page.parameters)) choose(name);
    for (let n = 0; n <= page.stops.length; n++) {
      show(n, true);
      if (svg.querySelectorAll(".on").length !== (n ? 1 : 0)) bad.push(`stop ${n}: ${svg.querySelectorAll(".on").length} marked`);
      if (n && !$("message").textContent) bad.push(`stop ${n}: nothing said`);
      if (/undefined|NaN|null/.test($("panel").textContent)) bad.push(`stop ${n}: ${$("panel").textContent.slice(0, 80)}`);
    }
    if (svg.querySelectorAll(".todo").length) bad.push(`${svg.querySelectorAll(".todo").length} parts hidden at the end`);
    if (page.guide.length < 5) bad.push(`${page.guide.length} stops on the guided path`);
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
} else if (location.hash.startsWith("#stop=")) { $("path").value = "all"; show(+location.hash.slice(6)); }
