// What makes a report's page answer: theme, tabs, stage slider, sortable tables, plots. Everything can be read without it.
"use strict";

const each = (selector, act, root = document) => root.querySelectorAll(selector).forEach(act);
document.documentElement.classList.add("scripted");

// ---- tabs: arrow keys move between them, as the ARIA pattern says
each('[role="tablist"]', (list) => {
  const tabs = [...list.querySelectorAll('[role="tab"]')];
  const select = (chosen, focus) => {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
    if (focus) chosen.focus();
  };
  tabs.forEach((tab, number) => {
    tab.addEventListener("click", () => select(tab, false));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: number + 1, ArrowLeft: number - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      select(tabs[(to + tabs.length) % tabs.length], true);
    });
  });
  if (tabs.length) select(tabs[0], false);
});

// ---- pictures: all stages side by side, or one at a time by the slider
const phone = window.matchMedia("(max-width: 40rem)").matches;
each(".gallery", (gallery) => {
  const slider = gallery.querySelector(".slider");
  if (!slider) return;
  const labels = JSON.parse(gallery.dataset.stages);
  const button = gallery.querySelector(".view");
  const view = (one) => {
    gallery.classList.toggle("one-stage", one);
    button.setAttribute("aria-pressed", String(one));
    gallery.querySelector("output").textContent = one ? labels[slider.value] : "all, side by side";
  };
  const show = () => {
    slider.setAttribute("aria-valuetext", labels[slider.value]);
    each(".picture[data-stage]", (picture) => picture.classList.toggle("shown", picture.dataset.stage === slider.value), gallery);
  };
  slider.addEventListener("input", () => { show(); view(true); });
  button.addEventListener("click", () => view(!gallery.classList.contains("one-stage")));
  gallery.querySelector(".controls").hidden = false;
  show();
  view(phone);
});

// ---- tables: a column's head sorts by it; what has no value stays last
each("table.sortable", (table) => {
  const body = table.tBodies[0];
  each("thead th", (head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") === "descending";
      const numeric = head.classList.contains("number");
      each("thead th", (other) => other.removeAttribute("aria-sort"), table);
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = (row) => (numeric ? row.cells[head.cellIndex].dataset.value : row.cells[head.cellIndex].textContent.trim());
      const rows = [...body.rows].map((row) => [key(row), row]);
      const order = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      rows.sort(([a], [b]) => (a === "") - (b === "") || (ascending ? order(a, b) : order(b, a)));
      body.append(...rows.map(([, row]) => row));
    });
  }, table);
});

// ---- plots
const colourOf = (value) => { // a canvas needs the colour itself, not the page's name for it
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = value;
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
};
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3], [4, 2, 2, 2, 2, 2]];
const written = (value) => (value == null ? "–" : String(+value.toPrecision(4)));

function drawBorders(plot, borders, ink) { // ends of stages as dashed lines, names on top
  const { ctx, bbox } = plot;
  const scale = window.devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = ink;
  ctx.font = `${11 * scale}px system-ui, sans-serif`;
  ctx.textAlign = "center";
  ctx.setLineDash([4 * scale, 3 * scale]);
  let start = 0;
  borders.forEach(([name, end], number) => {
    const from = plot.valToPos(start, "x", true);
    const to = plot.valToPos(end, "x", true);
    if (number < borders.length - 1) {
      ctx.beginPath();
      ctx.moveTo(to, bbox.top);
      ctx.lineTo(to, bbox.top + bbox.height);
      ctx.stroke();
    }
    if (ctx.measureText(name).width < to - from) ctx.fillText(name, (from + to) / 2, bbox.top - 4 * scale);
    start = end;
  });
  ctx.restore();
}

function nameDots(plot, spec, ink) {
  const scale = window.devicePixelRatio || 1;
  plot.ctx.save();
  plot.ctx.fillStyle = ink;
  plot.ctx.font = `${12 * scale}px system-ui, sans-serif`;
  for (const series of spec.series) {
    const at = series.values.findIndex((value) => value != null);
    const x = plot.valToPos(spec.x[at], "x", true);
    const left = x > plot.bbox.left + 0.6 * plot.bbox.width;
    plot.ctx.textAlign = left ? "right" : "left";
    plot.ctx.fillText(series.label, x + (left ? -10 : 10) * scale, plot.valToPos(series.values[at], "y", true) + 4 * scale);
  }
  plot.ctx.restore();
}

function options(spec, width) {
  const ink = colourOf("var(--quiet)");
  const grid = { stroke: colourOf("var(--line)"), width: 0.5 };
  const dots = spec.kind === "dots";
  const axis = { stroke: ink, grid, ticks: grid, labelSize: 22, labelFont: "12px system-ui, sans-serif", font: "11px system-ui, sans-serif" };
  const padded = (plot, low, high) => {
    const room = Math.max(0.25 * (high - low), 0.02);
    return [low - room, high + room];
  };
  const gaps = (plot, number, first, last, found) => { // losses of different stages are not one line
    for (const [, end] of spec.borders.slice(0, -1)) {
      const next = spec.x.find((x) => x > end);
      if (next !== undefined) found.push([plot.valToPos(end, "x", true), plot.valToPos(next, "x", true)].map(Math.round));
    }
    return found.sort(([a], [b]) => a - b);
  };
  const series = spec.series.map((one) => {
    const colour = colourOf(one.colour == null ? "var(--ink)" : `var(--c${one.colour})`);
    const look = { label: one.label, stroke: colour, width: 1.75, dash: DASHES[one.dash % DASHES.length], value: (_, v) => written(v) };
    if (dots) return { ...look, paths: () => null, points: { show: true, size: 11, fill: colour } };
    if (spec.kind === "scores") return { ...look, spanGaps: true, points: { show: true, size: 5, fill: colour } };
    return { ...look, gaps };
  });
  const y = spec.log ? { distr: 3 } : { range: dots ? padded : { min: { soft: 0, mode: 1, pad: 0 }, max: { pad: 0.05, soft: 0, mode: 2 } } };
  return {
    width,
    height: dots ? 340 : 260,
    padding: [16, 16, 0, 0],
    scales: { x: { time: false, range: dots ? padded : [0, spec.last] }, y },
    axes: [{ ...axis, label: spec.x_label, ...(dots ? {} : { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }) }, { ...axis, label: spec.y_label, size: 56, values: (_, splits) => splits.map((v) => (v == null ? "" : String(+v.toPrecision(3)))) }],
    series: [{ label: dots ? "plasticity" : "epoch", value: (_, v) => written(v) }, ...series],
    legend: { markers: { width: 2, dash: (_, number) => (number && !dots && spec.series[number - 1].dash % DASHES.length ? "dashed" : "solid") } },
    hooks: { draw: [(plot) => (dots ? nameDots(plot, spec, ink) : drawBorders(plot, spec.borders, ink))] },
  };
}

const plots = [];
function draw(host, spec) {
  host.replaceChildren();
  const plot = new uPlot(options(spec, host.clientWidth), [spec.x, ...spec.series.map((one) => one.values)], host);
  each(".u-series", (row, number) => { // the legend's names hide lines: by keyboard too
    const name = row.querySelector("th");
    if (number === 0 || !name) return;
    name.tabIndex = 0;
    name.setAttribute("role", "button");
    name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation();
      plot.setSeries(number, { show: !plot.series[number].show });
    });
  }, host);
  return plot;
}

function readByKeys(entry) {
  let at = -1;
  entry.host.addEventListener("keydown", (event) => {
    const last = entry.spec.x.length - 1;
    const to = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    at = to;
    entry.plot.setCursor({ left: entry.plot.valToPos(entry.spec.x[at], "x"), top: entry.plot.over.clientHeight / 2 });
  });
}

const specs = JSON.parse(document.getElementById("charts").textContent);
each("[data-chart]", (figure) => {
  const entry = { host: figure.querySelector(".plot"), spec: specs[figure.dataset.chart] };
  entry.plot = draw(entry.host, entry.spec);
  readByKeys(entry);
  new ResizeObserver(() => {
    const width = entry.host.clientWidth;
    if (width && width !== entry.plot.width) entry.plot.setSize({ width, height: entry.plot.height });
  }).observe(entry.host);
  plots.push(entry);
});
const redraw = () => plots.forEach((entry) => { entry.plot.destroy(); entry.plot = draw(entry.host, entry.spec); });

// ---- theme: the system's, until the reader chooses; paper is always light
const system = window.matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const button = document.getElementById("theme");
button.hidden = false;
button.addEventListener("click", () => {
  const dark = root.style.colorScheme ? root.style.colorScheme === "dark" : system.matches;
  root.style.colorScheme = dark ? "light" : "dark";
  redraw();
});
system.addEventListener("change", redraw);
let chosen = "";
window.addEventListener("beforeprint", () => {
  chosen = root.style.colorScheme;
  root.style.colorScheme = "light";
  each("details", (details) => { details.open = true; });
  redraw();
});
window.addEventListener("afterprint", () => { root.style.colorScheme = chosen; redraw(); });
