"use strict";
// Draws what is in view. Times are microseconds of true time; what is narrower than a pixel is drawn together.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const NS = "http://www.w3.org/2000/svg";
const ROLE = ["follower", "pre-candidate", "candidate", "leader"];
const RESULT = ["ok", "refused", "unknown", "never answered"];
const RESULT_FILL = ["ok", "refused", "unknown", "open"];
const GUTTER = 150, MARGIN = 14, BAND_ROWS = 6, LEAST_US = 2000;
const END = Math.max(D.end, 1);
let from = 0, to = END, cursor = null;

// ---- what follows from the data ------------------------------------------------------

const leaders = D.hosts
  .flatMap((host, n) => host.roles.filter((each) => each[2] === 3).map((each) => [each[0], each[1], n, each[3]]))
  .sort((a, b) => a[0] - b[0]);

function nobody(spans) {
  const gaps = [];
  let until = null;
  for (const [a, b] of [...spans].sort((x, y) => x[0] - y[0])) {
    if (until === null) { if (a > 0) gaps.push([0, a]); until = b; continue; }
    if (a > until) gaps.push([until, a]);
    until = Math.max(until, b);
  }
  if (until === null) gaps.push([0, END]); else if (until < END) gaps.push([until, END]);
  return gaps;
}

function rowsOf(bands) {
  const free = [];
  return bands.map((band) => {
    let row = free.findIndex((until) => until <= band[0]);
    if (row < 0) row = free.length < BAND_ROWS ? free.length : BAND_ROWS - 1;
    free[row] = Math.max(free[row] || 0, band[1]);
    return row;
  });
}
const bandRows = rowsOf(D.bands);
const bandRowCount = bandRows.length ? Math.max(...bandRows) + 1 : 1;

const reach = D.hosts.map((_, n) => {
  const spans = [];
  let since = 0, count = 0;
  for (const point of D.unreached) {
    const now = point[1 + n];
    if (now === count) continue;
    if (count) spans.push([since, point[0], count]);
    since = point[0]; count = now;
  }
  if (count) spans.push([since, END, count]);
  return spans;
});
const indexMax = Math.max(1, ...D.hosts.flatMap((host) => host.progress.map((point) => Math.max(point[1], point[2]))));
const answers = D.requests.map((each) => [each[1] < 0 ? each[0] : each[1], each]).sort((a, b) => a[0] - b[0]);

// ---- small things --------------------------------------------------------------------

const time = (us, digits = 3) => {
  const s = us / 1e6;
  if (END < 120e6) return s.toFixed(digits) + " s";
  const m = Math.floor(s / 60);
  return m + ":" + (s - 60 * m).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
};
const lasted = (a, b) => { const ms = (b - a) / 1e3; return ms < 1000 ? +ms.toFixed(1) + " ms" : +(ms / 1e3).toFixed(2) + " s"; };
const span = (a, b) => `${time(a)} – ${time(b)} (${lasted(a, b)})`;

function make(name, attributes, text) {
  const made = document.createElementNS(NS, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return made;
}

class Canvas {
  constructor(svg, height) {
    this.svg = svg; this.width = svg.clientWidth || 1200; this.height = height;
    this.root = document.createDocumentFragment();
    this.left = GUTTER; this.right = this.width - MARGIN;
    this.scale = (this.right - this.left) / (to - from);
  }
  x(t) { return Math.min(this.right, Math.max(this.left, this.left + (t - from) * this.scale)); }
  put(element, tip) { if (tip) element.tip = tip; this.root.append(element); return element; }
  rect(x, y, w, h, fill, tip, more) {
    return this.put(make("rect", { x: x.toFixed(2), y, width: Math.max(w, 0).toFixed(2), height: h, fill, ...more }), tip);
  }
  text(x, y, text, more) { return this.put(make("text", { x, y, ...more }, text)); }
  // A bar with as much of its text as fits, the longest wording first.
  bar(a, b, y, h, fill, ink, words, tip, more) {
    const x0 = this.x(a), x1 = this.x(b), w = Math.max(x1 - x0, 1.5);
    this.rect(x0, y, w, h, fill, tip, more);
    for (const word of words) {
      if (word.length * 6.3 + 8 > w) continue;
      this.text((x0 + 5).toFixed(1), y + h / 2 + 4, word, { style: `fill:${ink}` });
      break;
    }
  }
  // Spans wider than a pixel one by one; the rest together, as the one that matters most.
  spans(list, weight, draw) {
    let bucket = null;
    const flush = () => { if (bucket) draw(bucket.top, bucket.a, bucket.b, bucket.count); bucket = null; };
    for (const each of list) {
      if (each[1] < from || each[0] > to) continue;
      if ((each[1] - each[0]) * this.scale >= 1.5) { flush(); draw(each, each[0], each[1], 1); continue; }
      if (bucket && (each[0] - bucket.a) * this.scale < 1.5) {
        bucket.count += 1; bucket.b = Math.max(bucket.b, each[1]);
        if (weight(each) > weight(bucket.top)) bucket.top = each;
      } else { flush(); bucket = { top: each, a: each[0], b: each[1], count: 1 }; }
    }
    flush();
  }
  done() {
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.svg.style.height = this.height + "px";
    this.svg.replaceChildren(hatches(), this.root);
  }
}

function hatches() {
  const defs = make("defs");
  for (const [id, color, width] of [["paused", "var(--hatch)", 2], ["nobody", "var(--hatch)", 1], ["clogged", "var(--cut)", 2.5], ["weather", "var(--weather)", 1.5]]) {
    const pattern = make("pattern", { id: "hatch-" + id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    pattern.append(make("line", { x1: 0, y1: 0, x2: 0, y2: 6, "stroke-width": width, style: `stroke:${color}` }));
    defs.append(pattern);
  }
  return defs;
}
const many = (count, text) => (count > 1 ? `${count} spans narrower than a pixel, among them\n${text}` : text);

// ---- lanes ---------------------------------------------------------------------------

function axis(c, y) {
  const steps = [1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 15e6, 3e7, 6e7, 12e7, 3e8, 6e8, 18e8];
  const step = steps.find((each) => each * c.scale >= 84) || 36e8;
  const digits = step >= 1e6 ? 0 : step >= 1e5 ? 1 : step >= 1e4 ? 2 : 3;
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
    const x = c.x(t).toFixed(1);
    c.put(make("line", { x1: x, x2: x, y1: y + 20, y2: c.height - 6, stroke: "var(--rule)" }));
    if (c.x(t) < c.right - 36) c.text(+x + 4, y + 15, time(t, digits), { class: "faint" });
  }
}

function phases(c) {
  for (const [at, name, hosts] of D.phases) {
    if (name !== "liveness" || at < from || at > to) continue;
    const x = c.x(at), who = hosts.map((n) => D.hosts[n].name).join(" ");
    c.rect(x, 20, c.right - x, c.height - 26, "var(--lease)", null, { opacity: 0.06, "pointer-events": "none" });
    c.put(make("line", { x1: x, x2: x, y1: 4, y2: c.height - 6, style: "stroke:var(--lease)", "stroke-dasharray": "4 3" }));
    const text = `healed for good: ${who}`;
    const fits = x + text.length * 6.2 < c.right;
    c.text(fits ? x + 5 : x - 5, 33, text, { style: "fill:var(--lease)", "text-anchor": fits ? "start" : "end" });
  }
}

function label(c, y, text, kind = "faint") { c.text(12, y, text, { class: kind }); }

function leaderLane(c, y) {
  label(c, y + 13, "leader", "group");
  c.rect(c.left, y, c.right - c.left, 18, "var(--lane)");
  c.spans(nobody(leaders), () => 0, (_, a, b, count) =>
    c.bar(a, b, y, 18, "url(#hatch-nobody)", "var(--faint)", [], many(count, `nobody leads\n${span(a, b)}`)));
  c.spans(leaders, (each) => each[3], (each, a, b, count) => {
    const [, , n, term] = each, name = D.hosts[n].name;
    const newer = count > 1 ? undefined : leaders.find((other) => other[3] > term && other[0] < b && other[1] > a);
    const cut = newer ? Math.max(a, newer[0]) : b;
    const tip = many(count, `${name} leads, term ${term}\n${span(each[0], each[1])}`);
    if (cut > a) c.bar(a, cut, y, 18, `var(--h${n % 7})`, "var(--on-host)", [`${name} · term ${term}`, `${name} · ${term}`, `${term}`], tip);
    if (cut < b) c.bar(cut, b, y + 13, 5, `var(--h${n % 7})`, "", [], `${name} still believes to lead, term ${term}, while term ${newer[3]} has a leader\n${span(cut, b)}`);
  });
}

// A leader that is paused leads nobody, whatever it believes.
function pausedLeaders(c, y) {
  for (const [a, b, n, term] of leaders) {
    for (const state of D.hosts[n].states) {
      const from = Math.max(a, state[0]), until = Math.min(b, state[1]);
      if (state[2] !== "paused" || from >= until) continue;
      c.spans([[from, until]], () => 0, (each, x, z) =>
        c.bar(x, z, y, 18, "url(#hatch-nobody)", "", [], `${D.hosts[n].name} is paused while it leads, term ${term}\n${span(each[0], each[1])}`));
    }
  }
}

function ownedLane(c, y, owned) {
  label(c, y + 13, owned.name.replace("service/", ""), "group");
  c.rect(c.left, y, c.right - c.left, 18, "var(--lane)");
  const acts = owned.acts.map((each) => [each[0], each[1] < 0 ? END : each[1], ...each.slice(2)]);
  c.spans(nobody(acts), () => 0, (_, a, b, count) =>
    c.bar(a, b, y, 18, "url(#hatch-nobody)", "var(--faint)", [], many(count, `nobody acts for ${owned.name}\n${span(a, b)}`)));
  c.spans(acts, (each) => each[3], (each, a, b, count) => {
    const name = D.hosts[each[2]].name, by = each[4] ? `, ended by ${each[4]}` : "";
    c.bar(a, b, y, 18, `var(--h${each[2] % 7})`, "var(--on-host)", [`${name} · fencing term ${each[3]}`, `${name} · ${each[3]}`, `${each[3]}`],
      many(count, `${name} acts for ${owned.name}, fencing term ${each[3]}${by}\n${span(each[0], each[1])}`));
  });
  const told = owned.owners.map((each, n) => [each[0], n + 1 < owned.owners.length ? owned.owners[n + 1][0] : END, each[1], each[2]]);
  c.spans(told, (each) => each[3], (each, a, b, count) => {
    const who = each[2] < 0 ? "nobody" : D.hosts[each[2]].name;
    c.bar(a, b, y + 20, 3, each[2] < 0 ? "var(--rule)" : `var(--h${each[2] % 7})`, "", [],
      many(count, `committed owner of ${owned.name}: ${who}, fencing term ${each[3]}\n${span(each[0], each[1])}`));
  });
  for (const [a, b] of owned.overlaps) {
    if (b < from || a > to) continue;
    c.rect(Math.min(c.x(a), c.right - 4), y - 3, Math.max(c.x(b) - c.x(a), 4), 24, "var(--wrong)", `two hosts act for ${owned.name}\n${span(a, b)}`);
  }
}

function marks(c, y, list) {
  let bin = null;
  const flush = () => {
    if (!bin) return;
    const x = bin.x / bin.all.length, wide = bin.all.length > 1 ? 5 : 4;
    const operations = bin.all.filter((each) => each[1].startsWith("op-")).length;
    const lines = bin.all.slice(0, 10).map((each) => `${time(each[0])}  ${each[1]}${each[2] ? "  " + each[2] : ""}`);
    if (bin.all.length > 10) lines.push(`and ${bin.all.length - 10} more`);
    if (operations < bin.all.length)
      c.put(make("path", { d: `M${x - wide} ${y} h${2 * wide} l${-wide} 9 z`, style: "fill:var(--fault)" }), lines.join("\n"));
    if (operations)
      c.put(make("circle", { cx: x, cy: operations < bin.all.length ? y - 1 : y + 4, r: operations < bin.all.length ? 2.6 : 3.8, style: "fill:var(--operation)" }), lines.join("\n"));
    if (bin.all.length > 1) c.text(x + 6, y + 8, bin.all.length, { class: "faint", style: "font-size:9px" });
    bin = null;
  };
  for (const mark of list) {
    if (mark[0] < from || mark[0] > to) continue;
    const x = c.x(mark[0]);
    if (bin && x - bin.first < 12) { bin.all.push(mark); bin.x += x; } else { flush(); bin = { first: x, x, all: [mark] }; }
  }
  flush();
}

function network(c, y) {
  label(c, y + 22, "network", "group");
  marks(c, y, D.marks);
  D.bands.forEach((band, n) => {
    const [a, b, kind, text] = band;
    if (b < from || a > to) return;
    const top = y + 13 + bandRows[n] * 15;
    const fill = kind === "cut" ? "var(--cut)" : kind === "clogged" ? "url(#hatch-clogged)" : "url(#hatch-weather)";
    const words = kind === "cut" ? [text, text.replace(/^cut: /, "").replaceAll("host", "")] : [];
    c.bar(a, b, top, 13, fill, "var(--on-host)", words, `${text}\n${span(a, b)}`);
  });
  return 13 + bandRowCount * 15;
}

const GONE = { killed: "killed", off: "no power", failed: "", ended: "ended", absent: "not a member yet" };

function hostLane(c, y, host, n) {
  c.put(make("line", { x1: 0, x2: c.width, y1: y - 6, y2: y - 6, stroke: "var(--rule)" }));
  c.rect(12, y + 14, 10, 10, `var(--h${n % 7})`, null, { rx: 2 });
  c.text(28, y + 24, host.name, { class: "name" });
  c.text(28, y + 40, host.note, { class: "faint" });
  marks(c, y, host.marks);
  const top = y + 12;
  c.rect(c.left, top, c.right - c.left, 18, "var(--lane)");
  const fills = ["var(--follower)", "var(--pre)", "var(--candidate)", "var(--leader)"];
  const inks = ["var(--follower-ink)", "var(--candidate-ink)", "var(--candidate-ink)", "var(--leader-ink)"];
  c.spans(host.roles, (each) => each[2], (each, a, b, count) => {
    const [, , role, term] = each;
    c.bar(a, b, top, 18, fills[role], inks[role], role === 3 ? [`leader, term ${term}`, `${term}`] : [`term ${term}`, `${term}`],
      many(count, `${host.name}: ${ROLE[role]}, term ${term}\n${span(each[0], each[1])}`));
  });
  c.spans(host.states, () => 0, (each, a, b, count) => {
    const [, , kind, detail] = each, tip = many(count, `${host.name}: ${kind === "paused" ? "paused, " : ""}${detail}\n${span(each[0], each[1])}`);
    if (kind === "paused") { c.bar(a, b, top, 18, "url(#hatch-paused)", "", [], tip); c.bar(a, b, top - 2, 2, "var(--ink)", "", [], tip); }
    else c.bar(a, b, top + (kind === "absent" ? 8 : 5), kind === "absent" ? 2 : 8, kind === "absent" ? "var(--rule)" : "var(--gone)", "var(--faint)", [GONE[kind] || detail.replace("sidecar ended by itself: ", ""), GONE[kind] || "failed"], tip, { stroke: kind === "absent" ? "none" : "var(--hatch)", "stroke-width": 0.6 });
  });
  c.spans(reach[n], (each) => each[2], (each, a, b, count) => {
    const part = each[2] / Math.max(1, D.hosts.length - 1);
    c.bar(a, b, top + 19, 3, "var(--cut)", "", [], many(count, `${host.name} does not reach ${each[2]} of ${D.hosts.length - 1} hosts both ways\n${span(each[0], each[1])}`), { opacity: 0.35 + 0.65 * part });
  });
  c.put(make("line", { x1: c.left, x2: c.right, y1: top + 26, y2: top + 26, stroke: "var(--rule)" }));
  c.spans(host.leases, () => 0, (each, a, b, count) =>
    c.bar(a, b, top + 24, 4, "var(--lease)", "", [], many(count, `${host.name}: lease runs\n${span(each[0], each[1])}`)));
  progress(c, top + 31, host);
}

function progress(c, y, host) {
  for (const [column, color, width] of [[1, "var(--committed)", 2.5], [2, "var(--applied)", 1]]) {
    let path = "", last = null, lastX = -9;
    const points = host.progress;
    for (let n = 0; n < points.length; n += 1) {
      const next = n + 1 < points.length ? points[n + 1][0] : END;
      if (next < from) continue;
      if (points[n][0] > to) break;
      const x = c.x(points[n][0]), value = (y + 15 - (14 * points[n][column]) / indexMax).toFixed(1);
      if (points[n][column] < 0) { // no sidecar ran
        if (last !== null) path += `H${x.toFixed(1)}`;
        last = null;
        continue;
      }
      if (last !== null && x - lastX < 0.6) { last = value; continue; }
      path += last === null ? `M${x.toFixed(1)} ${value}` : `H${x.toFixed(1)}V${value}`;
      last = value; lastX = x;
    }
    if (last !== null) path += `V${last}H${c.x(to).toFixed(1)}`;
    if (path) c.put(make("path", { d: path, fill: "none", "stroke-width": width, style: `stroke:${color}` }));
  }
}

function clients(c, y, h) {
  c.put(make("line", { x1: 0, x2: c.width, y1: y - 6, y2: y - 6, stroke: "var(--rule)" }));
  label(c, y + 14, "clients", "group");
  const width = 6, bins = new Map();
  for (const [at, each] of answers) {
    if (at < from || at > to) continue;
    const n = Math.floor((c.x(at) - c.left) / width);
    const bin = bins.get(n) || [0, 0, 0, 0];
    bin[each[2]] += 1; bins.set(n, bin);
  }
  const most = Math.max(1, ...[...bins.values()].map((bin) => bin[0] + bin[1] + bin[2] + bin[3]));
  label(c, y + 29, `most: ${most} in ${lasted(0, width / c.scale)}`);
  for (const [n, bin] of bins) {
    const x = c.left + n * width, a = from + (n * width) / c.scale;
    const tip = `${time(a)}, ${lasted(0, width / c.scale)}\n` + bin.map((count, kind) => count && `${count} ${RESULT[kind]}`).filter(Boolean).join("\n");
    let base = y + h;
    bin.forEach((count, kind) => {
      const high = (count / most) * h;
      base -= high;
      if (count) c.rect(x, base.toFixed(2), width - 1, high.toFixed(2), `var(--${RESULT_FILL[kind]})`, tip);
    });
  }
}

function violation(c) {
  if (!D.violation || D.violation.at < from - 1 || D.violation.at > to + 1) return;
  const x = c.x(D.violation.at), text = `${D.violation.checker}: ${D.violation.text}`.split("\n")[0];
  c.rect(x - 1.5, 2, 3, c.height - 8, "var(--wrong)", `${D.violation.kind} at ${time(D.violation.at)}\n${D.violation.text.slice(0, 600)}`);
  const left = x > (c.left + c.right) / 2;
  const room = Math.floor((left ? x - c.left : c.right - x) / 6.6) - 3;
  const shown = text.length > room ? text.slice(0, room - 1) + "…" : text, w = shown.length * 6.3 + 12;
  c.rect(left ? x - w : x, 2, w, 16, "var(--wrong)", D.violation.text.slice(0, 600));
  c.text(left ? x - 6 : x + 6, 14, shown, { style: "fill:#fff", "text-anchor": left ? "end" : "start" });
}

function paint() {
  const host = 70, clientHeight = 44, ownedTop = 68, net = ownedTop + D.owned.length * 30 + 8;
  const first = net + 13 + bandRowCount * 15 + 16, last = first + D.hosts.length * host;
  const c = new Canvas($("chart"), last + clientHeight + 14);
  axis(c, 0);
  phases(c);
  leaderLane(c, 40);
  pausedLeaders(c, 40);
  D.owned.forEach((owned, n) => ownedLane(c, ownedTop + n * 30, owned));
  c.put(make("line", { x1: 0, x2: c.width, y1: net - 6, y2: net - 6, stroke: "var(--rule)" }));
  network(c, net);
  D.hosts.forEach((each, n) => hostLane(c, first + n * host, each, n));
  clients(c, last, clientHeight);
  violation(c);
  c.cursor = c.put(make("line", { y1: 20, y2: c.height - 6, stroke: "var(--faint)", "stroke-width": 0.7, visibility: "hidden", "pointer-events": "none" }));
  c.done();
  chart = c;
  overview();
  read();
}
let chart = null;

function overview() {
  const keep = [from, to];
  from = 0; to = END;
  const c = new Canvas($("overview"), 34);
  c.left = GUTTER;
  c.text(12, 21, "whole run", { class: "faint" });
  c.spans(leaders, (each) => each[3], (each, a, b) => c.bar(a, b, 6, 12, `var(--h${each[2] % 7})`, "", []));
  const all = [...D.marks, ...D.hosts.flatMap((host) => host.marks)];
  for (const x of new Set(all.map((each) => Math.round(c.x(each[0]))))) c.rect(x, 21, 1, 6, "var(--fault)");
  if (D.violation) c.rect(c.x(D.violation.at) - 1.5, 2, 3, 30, "var(--wrong)");
  const x0 = c.x(keep[0]), x1 = c.x(keep[1]);
  c.rect(c.left, 0, x0 - c.left, 34, "var(--ground)", null, { opacity: 0.7 });
  c.rect(x1, 0, c.right - x1, 34, "var(--ground)", null, { opacity: 0.7 });
  c.rect(x0, 1, Math.max(3, x1 - x0), 32, "none", null, { style: "stroke:var(--ink)", rx: 3 });
  c.done();
  [from, to] = keep;
}

// ---- reading at the cursor -----------------------------------------------------------

const at = (list, t) => list.find((each) => each[0] <= t && t < each[1]);

function read() {
  const box = $("reading");
  if (cursor === null) { box.textContent = `${time(from)} – ${time(to)}`; return; }
  const parts = [[time(cursor), ""]];
  for (const host of D.hosts) {
    const state = at(host.states, cursor), role = at(host.roles, cursor), lease = at(host.leases, cursor);
    const point = host.progress.findLast((each) => each[0] <= cursor) || [0, 0, 0];
    let text = state ? (state[2] === "paused" ? "paused" : state[3]) : "";
    if (role) text = `${text ? text + ", " : ""}${ROLE[role[2]]} ${role[3]}, committed ${Math.max(0, point[1])}, applied ${Math.max(0, point[2])}, lease ${lease ? "runs" : "none"}`;
    parts.push([host.name, text]);
  }
  box.replaceChildren(...parts.map(([name, text]) => {
    const made = document.createElement("span"), bold = document.createElement("b");
    bold.textContent = name; made.append(bold, " " + text);
    return made;
  }));
}

// ---- moving --------------------------------------------------------------------------

let isDue = false;
function redraw() { if (!isDue) { isDue = true; requestAnimationFrame(() => { isDue = false; paint(); }); } }

function show(a, b) {
  const least = Math.min(LEAST_US, END), wide = Math.min(END, Math.max(least, b - a));
  from = Math.min(Math.max(0, (a + b) / 2 - wide / 2), END - wide);
  to = from + wide;
  redraw();
}
function zoom(factor, around) { show(around - (around - from) * factor, around + (to - around) * factor); }
const timeAt = (event) => {
  const x = event.clientX - $("chart").getBoundingClientRect().left;
  return from + ((Math.min(chart.right, Math.max(chart.left, x)) - chart.left) / chart.scale);
};

$("chart").addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    const by = ((event.deltaX || event.deltaY) / chart.width) * (to - from);
    show(from + by, to + by);
  } else zoom(Math.exp(Math.max(-300, Math.min(300, event.deltaY)) * 0.0018), timeAt(event));
}, { passive: false });

let grip = null;
$("chart").addEventListener("pointerdown", (event) => {
  grip = { x: event.clientX, from, to };
  $("chart").setPointerCapture(event.pointerId);
  $("chart").classList.add("moving");
});
$("chart").addEventListener("pointerup", () => { grip = null; $("chart").classList.remove("moving"); });
$("chart").addEventListener("pointercancel", () => { grip = null; $("chart").classList.remove("moving"); });
$("chart").addEventListener("pointermove", (event) => {
  const tip = $("tip");
  if (grip) {
    const by = (grip.x - event.clientX) / chart.scale;
    show(grip.from + by, grip.to + by);
    tip.hidden = true;
    return;
  }
  cursor = timeAt(event);
  const x = chart.x(cursor);
  chart.cursor.setAttribute("x1", x); chart.cursor.setAttribute("x2", x); chart.cursor.setAttribute("visibility", "visible");
  read();
  tip.hidden = !event.target.tip;
  if (event.target.tip) {
    tip.textContent = event.target.tip;
    tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = (event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18) + "px";
  }
});
$("chart").addEventListener("pointerleave", () => { cursor = null; $("tip").hidden = true; if (chart) chart.cursor.setAttribute("visibility", "hidden"); read(); });
$("chart").addEventListener("dblclick", () => show(0, END));

function centre(event) {
  if (event.type === "pointermove" && !event.buttons) return;
  const box = $("overview").getBoundingClientRect(), x = event.clientX - box.left - GUTTER;
  const t = (x / (box.width - GUTTER - MARGIN)) * END;
  show(t - (to - from) / 2, t + (to - from) / 2);
}
$("overview").addEventListener("pointerdown", centre);
$("overview").addEventListener("pointermove", centre);
addEventListener("keydown", (event) => {
  const wide = to - from, middle = (from + to) / 2;
  const act = { "+": () => zoom(0.6, middle), "=": () => zoom(0.6, middle), "-": () => zoom(1 / 0.6, middle), 0: () => show(0, END),
    ArrowLeft: () => show(from - wide / 5, to - wide / 5), ArrowRight: () => show(from + wide / 5, to + wide / 5) }[event.key];
  if (act && !event.ctrlKey && !event.metaKey) { event.preventDefault(); act(); }
});
addEventListener("resize", redraw);
$("all").onclick = () => show(0, END);
$("in").onclick = () => zoom(0.5, (from + to) / 2);
$("out").onclick = () => zoom(2, (from + to) / 2);

// ---- words ---------------------------------------------------------------------------

function legend() {
  const box = (fill, extra = "") => `<rect x="0" y="1" width="26" height="12" rx="1" style="fill:${fill}" ${extra}/>`;
  const items = [
    [box("var(--leader)"), "leader"], [box("var(--candidate)"), "candidate"], [box("var(--pre)"), "pre-candidate"], [box("var(--follower)"), "follower, with its term"],
    [box("url(#hatch-paused)"), "paused"], ['<rect x="0" y="3" width="26" height="8" style="fill:var(--gone);stroke:var(--hatch);stroke-width:.6"/>', "no sidecar runs"],
    [box("url(#hatch-nobody)"), "nobody leads or owns"], ['<rect y="5" width="26" height="4" style="fill:var(--lease)"/>', "lease runs"],
    ['<path d="M0 12H8V8H18V3H26" fill="none" style="stroke:var(--committed);stroke-width:2.5"/><path d="M0 12H9V8H20V3H26" fill="none" style="stroke:var(--applied);stroke-width:1"/>', "log known committed (wide), applied (thin)"],
    ['<path d="M9 2h8l-4 9z" style="fill:var(--fault)"/>', "fault"], ['<circle cx="13" cy="7" r="3.8" style="fill:var(--operation)"/>', "operators' work"],
    [box("var(--cut)"), "links cut"], [box("url(#hatch-clogged)"), "clogged"], [box("url(#hatch-weather)"), "loss, delay"],
    ...RESULT.map((name, n) => [box(`var(--${RESULT_FILL[n]})`), name]), [box("var(--wrong)"), "a broken promise, and nothing else"],
  ];
  for (const [drawing, text] of items) {
    const made = document.createElement("span");
    made.innerHTML = `<svg viewBox="0 0 26 14" aria-hidden="true">${drawing}</svg>`;
    made.append(text);
    $("legend").append(made);
  }
}

function rows(table, pairs) {
  for (const [key, value] of pairs) {
    const row = table.insertRow();
    row.insertCell().textContent = key;
    row.insertCell().textContent = value;
  }
}

function words() {
  $("title").textContent = `Seed ${D.seed}: ${D.hosts.length} hosts, ${time(D.end, 0)} simulated`;
  document.title = `Trellis, simulated: seed ${D.seed}`;
  const verdict = $("verdict"), bold = document.createElement("b");
  if (D.violation) {
    verdict.className = "wrong";
    bold.textContent = { safety: "A safety promise was broken", liveness: "A healed majority did not get on", crash: "Production code raised what it must not" }[D.violation.kind];
    const text = document.createElement("pre");
    text.textContent = D.violation.text;
    verdict.append(bold, ` (${D.violation.checker}) at ${time(D.violation.at, 6)}`, text);
    $("found").hidden = false;
    $("found").onclick = () => show(D.violation.at - 5e6, D.violation.at);
  } else {
    bold.textContent = "No promise was broken.";
    verdict.append(bold, ` ${D.events.toLocaleString("en")} events were checked.`);
  }
  if (D.left_out) verdict.append(" The earliest spans are left out: there were too many.");
  $("again").textContent = D.again;
  $("hash").textContent = D.hash;
  rows($("figures"), D.figures);
  rows($("settings"), D.settings);
  for (const [kind, count] of Object.entries(D.counters)) {
    const row = document.createElement("div"), name = document.createElement("span");
    name.textContent = kind;
    row.append(name, count.toLocaleString("en"));
    $("counters").append(row);
  }
}

words();
legend();
const wanted = /^#t=([\d.]+)-([\d.]+)$/.exec(location.hash);
if (wanted) { from = Math.max(0, wanted[1] * 1e6); to = Math.min(END, wanted[2] * 1e6); }
paint();
