"""Style sheet and script of the HTML page; plain JavaScript, no library."""

from __future__ import annotations

from typing import Final

STYLE: Final = """\
:root{color-scheme:light dark}
:root{--paper:#fff;--ink:#1b1e24;--soft:#5a616c;--line:#d4d8de;--lane:#f3f4f6;--hot:#3b6fb6}
@media (prefers-color-scheme:dark){
:root{--paper:#16181c;--ink:#eceef2;--soft:#a8aeb9;--line:#3a3f49;--lane:#1f2228;--hot:#7fb0f0}
}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink)}
body{font:14px/1.45 Helvetica,Arial,"Liberation Sans","Segoe UI",sans-serif}
main{max-width:1760px;margin:0 auto;padding:12px 20px 48px}
main{display:grid;grid-template-columns:minmax(0,1fr) 270px;gap:0 16px}
section{grid-column:1/-1;margin-top:22px}
figure{margin:0}
svg{display:block}
h2{font-size:16px;margin:0 0 8px;display:inline-block}
aside{border-left:1px solid var(--line);padding:18px 0 0 20px;color:var(--soft);overflow-wrap:anywhere}
aside h2{color:var(--ink);display:block}
dl{display:grid;grid-template-columns:auto 1fr;gap:4px 14px;margin:0 0 14px}
dt{color:var(--soft)}
dd{margin:0;color:var(--ink)}
aside ul{list-style:none;margin:0;padding:0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{padding:5px 10px;text-align:left;border-bottom:1px solid var(--line)}
th,td{max-width:340px;overflow-wrap:anywhere}
th{white-space:nowrap;padding:0}
th button{all:unset;cursor:pointer;padding:5px 10px;color:var(--soft)}
th button:focus-visible,tr:focus-visible{outline:2px solid var(--hot);outline-offset:-2px}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
tbody tr{cursor:pointer}
tbody tr:hover,tbody tr.on{background:var(--lane)}
.zoom{margin-left:18px;color:var(--soft)}
.zoom input{vertical-align:middle;width:260px;accent-color:var(--hot)}
.zoom output{margin-left:10px}
.box{cursor:pointer}
.box:focus{outline:none}
.nl-levels .box.on .card,.nl-levels .box:focus-visible .card{stroke:var(--hot);stroke-width:2}
.focus .wires{opacity:.13}
.focus .box{opacity:.35}
.focus .box.on,.focus .box.near{opacity:1}
.nl-levels .route.on{stroke:var(--ink);stroke-width:2.4}
@media (max-width:1000px){main{grid-template-columns:minmax(0,1fr)}aside{border:0;padding:10px 0}}
@media print{aside,.zoom{display:none}main{display:block}}
"""

SCRIPT: Final = """\
"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const parts = facts.graph.components, edges = facts.graph.edges;
  const svg = document.querySelector("#drawing svg"), panel = document.getElementById("panel");
  const boxes = [...svg.querySelectorAll(".box")], routes = [...svg.querySelectorAll(".route")];
  const table = document.getElementById("levels"), body = table.tBodies[0];
  let chosen = null;

  const words = (number) => number.toLocaleString("en-US");
  const make = (tag, text) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  function light(number) {
    svg.classList.toggle("focus", number !== null);
    const near = new Set();
    for (const route of routes) {
      const on = number !== null && (route.dataset.s === number || route.dataset.t === number);
      route.classList.toggle("on", on);
      if (on) near.add(route.dataset.s).add(route.dataset.t);
    }
    for (const box of boxes) {
      box.classList.toggle("on", box.dataset.i === number);
      box.classList.toggle("near", near.has(box.dataset.i));
    }
    for (const row of body.rows) row.classList.toggle("on", row.dataset.i === number);
  }

  function show(number) {
    const part = parts[number], list = make("dl"), path = part.path;
    const add = (name, value) => {
      if (value !== null && value !== "") list.append(make("dt", name), make("dd", value));
    };
    const whole = (n) => (n === null ? null : words(n));
    add("level", part.rank);
    add("kind", part.kind);
    add("clock", part.clock.words);
    add("tokens/update", part.clock.unit === "never" ? "∞" : whole(part.tokens_per_update));
    add("learns from", part.learns_from);
    add("rule", part.rule);
    add("taught by", part.taught_by);
    add("parameters", whole(part.parameters));
    add("state", whole(part.state_bytes) + " bytes" + (part.per_sequence ? " per sequence" : ""));
    add("FLOPs/token", whole(part.flops_per_token));
    add("copies", part.copies);
    add("depth", part.depth);
    add("spec", part.span);
    const flows = make("ul");
    for (const edge of edges) {
      if (edge.source === path) flows.append(make("li", edge.kind + " → " + edge.target));
      if (edge.target === path) flows.append(make("li", edge.kind + " ← " + edge.source));
    }
    panel.replaceChildren(make("h2", path), list, flows);
  }

  function choose(number) {
    chosen = chosen === number ? null : number;
    light(chosen);
    if (chosen !== null) show(chosen);
  }

  for (const box of boxes) {
    box.setAttribute("tabindex", "0");
    box.setAttribute("role", "button");
    box.addEventListener("mouseenter", () => light(box.dataset.i));
    box.addEventListener("mouseleave", () => light(chosen));
  }
  for (const node of [...boxes, ...body.rows]) {
    node.addEventListener("click", () => choose(node.dataset.i));
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(node.dataset.i);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chosen !== null) choose(chosen);
  });

  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => {
      const cell = row.cells[column];
      return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
    };
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a < b ? -1 : a > b ? 1 : 0);
    const rows = [...body.rows].sort((a, b) => compare(value(a), value(b)) * (down ? -1 : 1));
    body.append(...rows);
  }));

  const zoom = document.getElementById("zoom");
  if (!zoom) return;
  const times = document.querySelector("#times svg"), place = times.querySelector(".plot");
  const left = Number(place.dataset.x), width = Number(place.dataset.w), top = Number(place.dataset.y);
  const high = Number(place.dataset.h), apart = 3.5, space = "http://www.w3.org/2000/svg";
  const draw = (tag, look, attributes, text) => {
    const node = document.createElementNS(space, tag);
    node.setAttribute("class", look);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    place.append(node);
  };
  times.querySelector(".note").textContent = "tokens";
  function plot() {
    const least = Math.min(facts.shortest * 8, facts.longest);
    const end = facts.longest * Math.pow(least / facts.longest, Number(zoom.value) / 1000);
    const x = (t) => left + (t / end) * width, bottom = top + facts.rows.length * high;
    place.replaceChildren();
    document.getElementById("span").textContent = `first ${words(Math.round(end))} tokens`;
    const raw = end / 8, power = Math.pow(2, Math.max(0, Math.round(Math.log2(raw))));
    for (let t = 0; t <= end * 1.0001; t += power) {
      draw("path", "grid", {d: `M${x(t)} ${top}V${bottom + 4}`});
      draw("text", "soft", {x: x(t), y: bottom + 17, "font-size": 10.5, "text-anchor": "middle"}, words(t));
    }
    facts.rows.forEach((row, i) => {
      const middle = top + (i + 0.5) * high, gap = row.period === null ? 0 : x(row.period) - left;
      draw("path", "grid", {d: `M${left} ${middle}h${width}`});
      if (row.always || (row.period !== null && gap < apart)) {
        const from = row.always ? left : Math.min(x(row.offset || row.period), left + width);
        draw("rect", "band", {x: from, y: middle - 6, width: left + width - from, height: 12});
      } else if (row.period !== null) {
        let d = "";
        for (let t = row.offset || row.period; t <= end * 1.0001; t += row.period) {
          d += `M${x(t)} ${middle - 6}v12`;
        }
        draw("path", "mark", {d, "stroke-width": 1.5});
      }
    });
  }
  zoom.addEventListener("input", plot);
  plot();
})();
"""
