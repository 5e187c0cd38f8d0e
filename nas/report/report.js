"use strict";
// The page's script: draws the figures in the reader's colours, shows networks on hover, pins them on a click.
// Everything that comes from the run is put in as text, never as HTML.

const page = JSON.parse(document.getElementById("data").textContent);
const points = page.points.rows;
for (const point of points) {
  for (const name of ["values", "shown"]) {
    point[name] = Object.fromEntries(page.points.keys.map((key, i) => [key, point[name][i]]));
  }
  point.notes = (point.notes || []).map((i) => page.points.texts[i]);
}
const stages = page.points.stages.map(([block, t, c, n, s, kernels, combine, se, experts]) => (
  { block: page.points.texts[block], t, c, n, s, kernels, combine, se, experts }));
const root = document.documentElement;

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// ---- a network as a strip of stages ----

function strip(point) {
  const drawn = element("div", { class: "strip" });
  const [low, high] = page.expansions;
  for (const index of point.stages || []) {
    const stage = stages[index];
    const place = high > low ? Math.min(1, Math.max(0, (stage.t - low) / (high - low))) : 0.5;
    const share = stage.t === null ? null : place;
    const kind = share === null ? "stage plain" : share > 0.5 ? "stage strong" : "stage";
    const cell = element("span", { class: kind, style: `--n:${stage.n};--t:${Math.round(100 * (share || 0))}%` });
    cell.append(stage.t === null ? "·" : String(stage.t));
    const marks = [];
    if (stage.kernels) marks.push(stage.kernels.join(stage.combine === "concat" ? "|" : "+"));
    if (stage.se) marks.push("SE");
    if (stage.experts) marks.push(`×${stage.experts}`);
    for (const mark of marks) cell.append(element("small", {}, mark));
    cell.title = describe(stage);
    drawn.append(cell);
  }
  return drawn;
}

function describe(stage) {
  const parts = [`${stage.block.replaceAll("_", " ")}, ${stage.c} channels, ${stage.n} blocks, stride ${stage.s}`];
  if (stage.t !== null) parts.push(`expansion ${stage.t}`);
  if (stage.kernels) parts.push(`kernels ${stage.kernels.join(", ")}${stage.combine ? ` (${stage.combine})` : ""}`);
  if (stage.se) parts.push(`squeeze-and-excitation ${stage.se}`);
  if (stage.experts) parts.push(`${stage.experts} experts`);
  return parts.join("\n");
}

function figures(point) {
  const list = element("dl");
  for (const key of Object.keys(page.quantities)) {
    if (point.values[key] === null || (point.kind === "printed" && key === "accuracy")) continue;
    list.append(element("dt", {}, page.quantities[key].title), element("dd", {}, point.shown[key]));
  }
  return list;
}

function standing(point) {
  const kinds = {
    found: "found by this search", own: "your own, trained here",
    published: "published, trained here", printed: "published, as printed",
  };
  const words = [kinds[point.kind]];
  if (page.runs.length > 1) words.unshift(page.runs[point.run].name);
  if (point.rank) words.push(`no. ${point.rank} on the front`);
  if (point.state === "stopped") words.push("stopped early");
  if (point.state === "failed") words.push("failed");
  if (point.number !== undefined) words.push(`trial ${point.number}`);
  return words.join(" · ");
}

// ---- hover card and pinned panel ----

const card = element("div", { class: "card", role: "tooltip" });
document.body.append(card);

function hover(index, event) {
  const point = points[index];
  card.replaceChildren(element("b", {}, point.name), element("div", { class: "soft" }, standing(point)), figures(point), strip(point));
  for (const note of point.notes.slice(0, 2)) card.append(element("div", { class: "soft" }, note));
  card.style.display = "block";
  const box = card.getBoundingClientRect();
  const left = event.clientX + 18 + box.width > innerWidth ? event.clientX - box.width - 18 : event.clientX + 18;
  card.style.left = `${Math.max(8, left)}px`;
  card.style.top = `${Math.max(8, Math.min(event.clientY - box.height / 2, innerHeight - box.height - 8))}px`;
}

function pin(index) {
  const panel = document.getElementById("pinned");
  if (!panel) return;
  const point = points[index];
  panel.dataset.point = index;
  const scatter = document.querySelector('[data-figure="pareto"]');
  if (scatter.dataset.drawn) draw(scatter);
  panel.replaceChildren(element("h3", {}, point.name), element("div", { class: "soft" }, standing(point)), figures(point), strip(point));
  for (const note of point.notes) panel.append(element("div", { class: "soft" }, note));
  if (!point.lines) return;
  const yaml = point.lines.map((line) => page.points.texts[line]).join("\n") + "\n";
  panel.append(element("pre", {}, yaml));
  const run = page.runs[point.run];
  const file = `${/^name: (\S+)/m.exec(yaml)[1]}.yaml`;
  const command = point.command || run.command.replace("NETWORK", file);
  const line = element("div", { class: "copyable" }, element("code", {}, command));
  if (!point.command) line.prepend(element("span", { class: "soft" }, `Save the YAML as ${file}, then:`));
  const buttons = element("div", { class: "buttons" }, copier("Copy YAML", yaml), copier("Copy command", command));
  panel.append(line, buttons);
}

function copier(label, text) {
  const button = element("button", { type: "button" }, label);
  button.addEventListener("click", () => copy(button, text));
  return button;
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // no clipboard for pages opened from a file in some browsers
    const area = element("textarea", { style: "position:fixed;opacity:0" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const label = button.dataset.label || button.textContent;
  button.dataset.label = label;
  button.dataset.copied = text;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1500);
}

// ---- figures ----

function colours(value) {
  // Figures name the palette's colours; plotly wants their values.
  if (typeof value === "string" && value.startsWith("var(")) {
    return getComputedStyle(root).getPropertyValue(value.slice(4, -1)).trim();
  }
  if (Array.isArray(value)) return value.map(colours);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, colours(item)]));
  }
  return value;
}

function isNarrow() {
  return innerWidth < 700;
}

function heightOf(given) {
  return isNarrow() ? given.narrow_height || Math.min(given.height, 460) : given.height;
}

function layout(given, place) {
  const grid = { gridcolor: "var(--grid)", linecolor: "var(--rule)", zerolinecolor: "var(--rule)", automargin: true };
  const full = {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "var(--ink)" },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 16, t: 24, b: 44 },
    hoverlabel: { bgcolor: "var(--paper)", bordercolor: "var(--rule)", font: { color: "var(--ink)" } },
    // A finger that drags over a figure scrolls the page.
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "var(--stopped)", activecolor: "var(--ink)" },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    ...given,
    width: Math.max(place.clientWidth, given.least_width || 0), height: heightOf(given),
  };
  for (const name of ["xaxis", "yaxis", ...Object.keys(given).filter((key) => /^[xy]axis\d+$/.test(key))]) {
    full[name] = { ...grid, ...given[name] };
  }
  if (isNarrow()) {
    if (!given.margin) full.margin = { ...full.margin, l: 44, r: 8 };
    if (given.coloraxis && given.coloraxis.showscale) {
      const bar = { ...given.coloraxis.colorbar, orientation: "h", y: -0.19, yanchor: "top", len: 0.9 };
      full.coloraxis = { ...given.coloraxis, colorbar: { ...bar, title: { ...bar.title, side: "bottom" } } };
    }
  }
  delete full.least_width;
  delete full.narrow_height;
  return colours(full);
}

const settings = {
  displaylogo: false, displayModeBar: matchMedia("(hover: none)").matches ? false : "hover", doubleClick: "reset",
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
};

function draw(place) {
  const figure = page.figures[place.dataset.figure];
  ring(figure);
  const isMap = figure.data.some((trace) => trace.meta && trace.meta.points);
  const data = colours(figure.data);
  if (isMap) for (const trace of data) {
    if (trace.meta && trace.meta.points) trace.hoverinfo = "none";
    if (Array.isArray(trace.text)) trace.text = trace.text.map((text) => text.replace(/^(<br>)+/, ""));
  }
  return Plotly.react(place, data, layout(figure.layout, place), settings).then(() => {
    if (isMap && !place.dataset.listens) listen(place);
    place.dataset.drawn = "yes";
  });
}

// A name stands beside its marker where neither another name nor a marker is; one that finds no such place is left out,
// since it can be read no more than what it lies on, and hovering still tells it. Ranks, drawn last, choose first.
function placeNames(place) {
  const paths = [...place.querySelectorAll(".points path.point")].filter((path) => path.style.display !== "none");
  const markers = paths.map((path) => ({ path, box: path.getBoundingClientRect() }));
  const { xaxis, yaxis } = place._fullLayout;
  const frame = place.getBoundingClientRect();
  const bounds = { left: frame.left + xaxis._offset, right: frame.right, bottom: frame.top + yaxis._offset + yaxis._length };
  const taken = [];
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  for (const text of [...place.querySelectorAll(".textpoint text")].reverse()) {
    text.style.transform = "";
    const box = text.getBoundingClientRect();
    const trace = text.closest(".trace");
    const own = markers.find(({ path }) => path.closest(".trace") === trace && path.__data__ === text.parentNode.__data__);
    if (!own) continue;
    const { left, right, top, bottom } = own.box;
    const [middle, beside] = [(left + right - box.width) / 2, (top + bottom - box.height) / 2];
    const rows = [bottom + 1, top - box.height - 1, bottom + box.height, top - 2 * box.height];
    const spots = [
      [middle, rows[0]], [middle, rows[1]], [right + 2, beside], [left - box.width - 2, beside],
      ...rows.flatMap((y) => [[right - 4, y], [left + 4 - box.width, y]]), [middle, rows[2]], [middle, rows[3]],
    ];
    const isRank = /^\d+$/.test(text.textContent);
    if (isRank) [spots[0], spots[1]] = [spots[1], spots[0]];
    const boxes = spots.map(([x, y]) => ({ left: x, right: x + box.width, top: y, bottom: y + box.height }))
      .filter((spot) => spot.left >= bounds.left && spot.right <= bounds.right && spot.bottom <= bounds.bottom
        && !taken.some((other) => meet(spot, other)));
    const free = boxes.find((spot) => !markers.some((marker) => meet(spot, marker.box))) || (isRank && boxes[0]);
    text.style.visibility = free ? "visible" : "hidden";
    if (!free) continue;
    text.style.transform = `translate(${free.left - box.left}px, ${free.top - box.top}px)`;
    taken.push(free);
  }
}

function listen(place) {
  place.dataset.listens = "yes";
  placeNames(place);
  place.on("plotly_afterplot", () => placeNames(place));
  const index = (event) => {
    const trace = event.points[0].data;
    return trace.meta && trace.meta.points ? trace.meta.points[event.points[0].pointIndex] : undefined;
  };
  place.on("plotly_hover", (event) => { if (index(event) !== undefined) hover(index(event), event.event); });
  place.on("plotly_unhover", () => { card.style.display = "none"; });
  place.on("plotly_click", (event) => { if (index(event) !== undefined) pin(index(event)); });
}

// ---- the scatter on other axes ----

function values(indices, key) {
  return indices.map((i) => {
    const value = points[i].values[key];
    return value === null ? null : value * page.quantities[key].factor;
  });
}

function axes() {
  return ["x", "y", "colour"].map((name) => (document.getElementById(`axis-${name}`) || {}).value);
}

function ring(figure) {
  // Around the pinned network, where it stands among those that were trained to the end.
  const trace = figure.data.find((each) => each.meta && each.meta.role === "pin");
  const index = Number((document.getElementById("pinned") || { dataset: {} }).dataset.point);
  if (!trace || !points[index]) return;
  const shown = ["complete", "printed"].includes(points[index].state) ? [index] : [];
  const [x, y] = axes();
  Object.assign(trace, { x: values(shown, x), y: values(shown, y) });
}

function chooseAxes() {
  const [x, y, colour] = axes();
  const figure = page.figures.pareto;
  for (const trace of figure.data) {
    const { role, points: shown, ends, run } = trace.meta;
    if (role === "region" || role === "stairs") {
      const corners = page.regions[run][`${x} ${y}`];
      [trace.x, trace.y] = role === "region" ? corners : corners.map((list) => list.slice(0, -2));
    }
    if (role === "points" || role === "row") trace.x = values(shown, x);
    if (role === "points") {
      trace.y = values(shown, y);
      const shaded = colour && !String(trace.marker.symbol).includes("open");
      Object.assign(trace.marker, shaded ? { color: values(shown, colour), coloraxis: "coloraxis" }
        : { color: trace.meta.colour, coloraxis: null });
    }
    if (role === "line") {
      // The best accuracy up to a cost: of no use where accuracy is not what stands up, and a cost across.
      const isUseful = y.endsWith("accuracy") && !x.endsWith("accuracy");
      const [xs, ys] = [values(shown, x), values(shown, y)];
      const known = shown.map((_, i) => i).filter((i) => isUseful && xs[i] !== null && ys[i] !== null);
      known.sort((a, b) => xs[a] - xs[b] || ys[a] - ys[b]);
      trace.x = known.map((i) => xs[i]);
      trace.y = known.map((_, k) => Math.max(...known.slice(0, k + 1).map((i) => ys[i])));
    }
    if (role === "joins") {
      const pairs = (list) => list.flatMap((value, i) => (i % 2 ? [value, null] : [value]));
      [trace.x, trace.y] = [pairs(values(ends, x)), pairs(values(ends, y))];
    }
  }
  for (const [axis, key] of [["xaxis", x], ["yaxis", y]]) {
    const { axis: text, log, ticks } = page.quantities[key];
    const labels = ticks ? { tickmode: "array", tickvals: ticks } : { tickmode: "auto", tickvals: null };
    Object.assign(figure.layout[axis], { title: { text }, type: log ? "log" : "linear", ...labels });
  }
  figure.layout.coloraxis.showscale = Boolean(colour);
  if (colour) figure.layout.coloraxis.colorbar.title.text = page.quantities[colour].axis;
  return draw(document.querySelector('[data-figure="pareto"]'));
}

// ---- begin ----

for (const place of document.querySelectorAll("[data-strip]")) place.append(strip(points[place.dataset.strip]));
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(button, button.dataset.copy));
}
for (const button of document.querySelectorAll("[data-pin]")) {
  button.addEventListener("click", () => {
    pin(Number(button.dataset.pin));
    document.getElementById("pinned").scrollIntoView({ behavior: "smooth", block: "nearest" });
  });
}
const unfold = document.getElementById("show-all");
if (unfold) {
  const table = document.querySelector("table.front");
  table.classList.add("folded");
  unfold.addEventListener("click", () => {
    table.classList.remove("folded");
    unfold.remove();
  });
}
for (const select of document.querySelectorAll(".controls select")) select.addEventListener("change", chooseAxes);
const first = points.findIndex((point) => point.rank === 1);
if (first >= 0) pin(first);

// The first figure is drawn at once, another when it comes near the part of the page that is read: a page opens fast.
const places = [...document.querySelectorAll("[data-figure]")];

async function drawEach(some) {
  for (const place of some) {
    try {
      await draw(place);
    } catch (error) {
      place.textContent = `This figure could not be drawn: ${error.message}`;
    }
    await new Promise((done) => { setTimeout(done); });  // so that the page can be scrolled meanwhile
  }
}

for (const place of places) place.style.minHeight = `${heightOf(page.figures[place.dataset.figure].layout)}px`;
let drawing = drawEach(places.slice(0, 1)).then(() => { root.dataset.ready = "yes"; });
const near = new IntersectionObserver((entries) => {
  const reached = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
  reached.forEach((place) => near.unobserve(place));
  drawing = drawing.then(() => drawEach(reached));
}, { rootMargin: "50% 0px" });
places.slice(1).forEach((place) => near.observe(place));
addEventListener("beforeprint", () => places.filter((place) => !place.dataset.drawn).forEach(draw));

function drawAgain() {
  drawing = drawing.then(() => drawEach(places.filter((place) => place.dataset.drawn)));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);
let resized;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(drawAgain, 150); });
