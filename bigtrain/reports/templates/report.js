// What moves on a report: plots, the time-lapse, switches. Reads the JSON in #data; fetches nothing.
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const NUM_COLOURS = 8;
const PLAY_MS = 150;
const WRAP = 70; // characters of a tooltip's line
const MOST_LINES = 60; // vertical lines of one run's events
const SYMBOLS = {start: "triangle-right", resumed: "triangle-right-open", preempted: "square", rollback: "triangle-left",
  alarm: "triangle-up", checkpoint: "line-ns", end: "circle"};
const QUIET = new Set(["start", "checkpoint", "end"]); // events without a vertical line
const AXES = {
  images: {title: "images seen", tickformat: "~s", hoverformat: ",d"},
  steps: {title: "steps", tickformat: "~s", hoverformat: ",d"},
  hours: {title: "hours of training", tickformat: "~g", hoverformat: ".2f"},
};
const state = {axis: "images", smooth: 0, marks: true, hidden: new Set(), linking: false};
const several = data.runs.length > 1;
const panels = new Map(); // id -> {panel, div}

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = number => css(`--run-${number % NUM_COLOURS}`);
// Plotly reads some tags in names and texts, so what comes from files is spelled out.
const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const wrapped = text => {
  const lines = [""];
  for (const word of String(text).split(" ")) {
    if (lines.at(-1).length + word.length > WRAP) lines.push("");
    lines[lines.length - 1] += `${word} `;
  }
  return lines.map(line => plain(line.trim())).join("<br>");
};

function smoothed(values) {
  // An exponential average that starts unbiased; gaps stay gaps.
  let sum = 0, weight = 0;
  return values.map(value => {
    if (value === null) return null;
    sum = state.smooth * sum + (1 - state.smooth) * value;
    weight = state.smooth * weight + (1 - state.smooth);
    return sum / weight;
  });
}

function layout(log) {
  const axis = AXES[state.axis], ink = css("--ink"), grid = css("--grid");
  const line = {gridcolor: grid, linecolor: grid, zeroline: false, automargin: true, color: css("--muted")};
  return {
    height: 250, margin: {l: 46, r: 12, t: 6, b: 34}, showlegend: false, hovermode: "x unified", dragmode: "zoom",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", separators: ".,",
    font: {family: "system-ui, sans-serif", size: 11, color: ink},
    hoverlabel: {bgcolor: css("--card"), bordercolor: grid, font: {color: ink, size: 11}, namelength: -1, align: "left"},
    xaxis: {...line, title: {text: axis.title, standoff: 4}, tickformat: axis.tickformat, hoverformat: axis.hoverformat,
      spikecolor: css("--muted"), spikethickness: 1, spikedash: "dot"},
    modebar: {bgcolor: "rgba(0,0,0,0)", color: css("--muted"), activecolor: css("--ink")},
    yaxis: {...line, type: log ? "log" : "linear", hoverformat: ".4~g", exponentformat: "power", nticks: 6},
    yaxis2: {overlaying: "y", range: [0, 1], visible: false, fixedrange: true},
  };
}
// Named one by one: plotly's own choice has a button that sends the data to a server.
const CONFIG = {displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false, displaylogo: false, responsive: true,
  modeBarButtons: [["toImage", "resetScale2d"]], plotlyServerURL: ""};

const tint = (panel, line, number) => several ? colour(line.run) : colour(number);
const dash = (panel, line) => several || panel.is_measured ? line.style : "solid";

function lineTraces(panel) {
  const traces = [];
  panel.lines.forEach((line, number) => {
    if (state.hidden.has(line.run)) return;
    const x = (line.x || data.runs[line.run].x)[state.axis];
    const smooths = state.smooth > 0 && !panel.is_measured;
    const name = plain(several ? `${data.runs[line.run].name} · ${line.name}` : line.name);
    const ink = {color: tint(panel, line, number), width: 1.8, dash: dash(panel, line)};
    if (smooths) traces.push({x, y: line.y, mode: "lines", line: {...ink, width: 1}, opacity: .25, hoverinfo: "skip"});
    traces.push({
      x, y: smooths ? smoothed(line.y) : line.y, name, line: ink, connectgaps: true,
      mode: panel.is_measured || line.y.length < 3 ? "lines+markers" : "lines", marker: {size: 5},
      error_y: line.error ? {array: line.error, thickness: 1, width: 2} : undefined,
      hovertemplate: "%{y:.4~g}",
    });
  });
  return traces;
}

function markTraces(runs) {
  return [...runs].map(run => {
    const at = new Map();
    for (const event of data.runs[run].events) {
      const x = event[state.axis];
      if (x === null) continue;
      const found = at.get(x) || {kind: event.kind, texts: []};
      if (QUIET.has(found.kind)) found.kind = event.kind;
      found.texts.push(`<b>${plain(event.kind)}</b> ${wrapped(event.text)}`);
      at.set(x, found);
    }
    const kinds = [...at.values()].map(each => each.kind);
    const ink = kinds.map(kind => css(`--event-${kind}`) || css("--muted"));
    return {
      x: [...at.keys()], y: kinds.map(() => 0.025), yaxis: "y2", mode: "markers", cliponaxis: false,
      name: several ? plain(data.runs[run].name) : "event", text: [...at.values()].map(each => each.texts.join("<br>")),
      marker: {symbol: kinds.map(kind => SYMBOLS[kind] || "diamond"), size: kinds.map(kind => kind === "checkpoint" ? 5 : 9),
        color: ink, line: {width: several ? 1.5 : 1, color: several ? colour(run) : ink}},
      hovertemplate: "%{text}",
    };
  });
}

function markShapes(runs) {
  return [...runs].flatMap(run => data.runs[run].events
    .filter(event => !QUIET.has(event.kind) && event[state.axis] !== null).slice(-MOST_LINES)
    .map(event => ({type: "line", yref: "paper", y0: 0, y1: 1, x0: event[state.axis], x1: event[state.axis], layer: "below",
      line: {width: 1, dash: "dot", color: css(`--event-${event.kind}`) || css("--muted")}})));
}

function draw(id) {
  const {panel, div} = panels.get(id);
  const log = document.querySelector(`[data-log="${id}"]`).checked;
  const runs = new Set(panel.lines.map(line => line.run).filter(run => !state.hidden.has(run)));
  const shown = layout(log), traces = lineTraces(panel);
  if (state.marks) {
    traces.push(...markTraces(runs));
    shown.shapes = markShapes(runs);
  }
  if (div.zoom) shown.xaxis.range = div.zoom;
  Plotly.react(div, traces, shown, CONFIG);
  keys(panel, document.querySelector(`[data-keys="${id}"]`));
}

function keys(panel, holder) {
  // What tells the lines of a run apart: colour where there is one run, dashes where there are several.
  const seen = new Map();
  panel.lines.forEach((line, number) => seen.has(line.name) || seen.set(line.name, {line, number}));
  holder.replaceChildren(...(seen.size < 2 ? [] : [...seen].map(([name, {line, number}]) => {
    const key = document.createElement("span"), sample = document.createElement("i");
    sample.className = dash(panel, line);
    sample.style.borderColor = several ? css("--ink") : tint(panel, line, number);
    key.append(sample, name);
    return key;
  })));
}

function drawAll() { for (const id of panels.keys()) draw(id); curves(); }

function link(div) {
  div.on("plotly_relayout", change => {
    if (state.linking) return;
    const from = change["xaxis.range[0]"], to = change["xaxis.range[1]"];
    if (from === undefined && !change["xaxis.autorange"]) return;
    state.linking = true;
    const moves = [...panels.values()].map(({div: other}) => {
      other.zoom = from === undefined ? null : [from, to];
      return other === div ? null : Plotly.relayout(other, from === undefined ? {"xaxis.autorange": true} : {"xaxis.range": [from, to]});
    });
    Promise.all(moves).finally(() => { state.linking = false; });
  });
}

function curves() {
  for (const holder of all("[data-curve]")) {
    const curve = data.curves[Number(holder.dataset.curve)];
    const plots = curve.names.map(name => ({title: name, x: null, y: name}));
    const distance = curve.names.find(name => !curve.higher.includes(name));
    if (curve.names.includes("recall") && curve.names.includes("precision"))
      plots.unshift({title: "precision against recall", x: "recall", y: "precision"});
    const score = ["inception_score", "is_classifier"].find(name => curve.names.includes(name));
    if (distance && score) plots.unshift({title: `${distance} against ${score}`, x: score, y: distance});
    if (!holder.children.length) holder.append(...plots.map(plot => curvePanel(plot.title)));
    plots.forEach((plot, number) => drawCurve(all(".plot", holder)[number], curve, plot));
  }
}

function curvePanel(title) {
  const card = document.createElement("article"), head = document.createElement("header");
  const name = document.createElement("h3"), div = document.createElement("div");
  card.className = "panel";
  div.className = "plot";
  name.textContent = title.replaceAll("_", " ");
  head.append(name);
  card.append(head, div);
  return card;
}

function drawCurve(div, curve, plot) {
  const shown = layout(false), trades = plot.x !== null;
  if (trades) shown.hovermode = "closest";
  Object.assign(shown.xaxis, {title: {text: trades ? plot.x.replaceAll("_", " ") : `threshold (${plain(curve.law)})`, standoff: 4},
    tickformat: "", hoverformat: ".4~g"});
  const repeated = new Set(curve.lines.map(line => line.run)).size < curve.lines.length;
  const traces = curve.lines.filter(line => !state.hidden.has(line.run)).map((line, number) => {
    const name = plain(data.runs[line.run].name + (repeated ? ` at ${line.images.toLocaleString("en")} images` : ""));
    const every = Math.ceil(line.thresholds.length / 8);
    return {
      x: trades ? line.figures[plot.x] : line.thresholds, y: line.figures[plot.y], name, customdata: line.thresholds,
      text: line.thresholds.map((threshold, place) => place % every ? "" : String(threshold)), textposition: "top center",
      textfont: {size: 9, color: css("--muted")}, mode: trades ? "lines+markers+text" : "lines+markers",
      line: {color: colour(several ? line.run : number), width: 1.5}, marker: {size: 4},
      hovertemplate: trades ? `<b>${name}</b><br>${plain(curve.law)}:%{customdata}<br>${plain(plot.x)} %{x:.4~g}<br>${plain(plot.y)} %{y:.4~g}<extra></extra>` : "%{y:.4~g}",
    };
  });
  Plotly.react(div, traces, shown, CONFIG);
}

const lapses = all("[data-lapse]").map(root => {
  const frames = data.runs[Number(root.dataset.lapse)].frames;
  const [image, slider, play, output, note] = ["img", "input", ".play", "output", ".note"].map(each => root.querySelector(each));
  const lapse = {frames, timer: null, show, stop};
  if (!frames.length) {
    note.hidden = false;
    for (const each of [image, root.querySelector(".player")]) each.remove();
    return lapse;
  }
  slider.max = frames.length - 1;
  if (frames[0].width < 500) image.classList.add("small");
  function show(number, leads = true) {
    slider.value = number;
    image.src = frames[number].uri;
    output.textContent = `${frames[number].images.toLocaleString("en")} images`;
    slider.setAttribute("aria-valuetext", output.textContent);
    if (leads && document.getElementById("together")?.checked)
      for (const other of lapses) if (other !== lapse && other.frames.length) other.show(nearest(other.frames, frames[number].images), false);
  }
  function stop() {
    clearInterval(lapse.timer);
    lapse.timer = null;
    play.textContent = "▶";
    play.setAttribute("aria-label", "play");
  }
  play.addEventListener("click", () => {
    if (lapse.timer) return stop();
    for (const other of lapses) other.stop?.();
    if (Number(slider.value) === frames.length - 1) show(0);
    play.textContent = "❚❚";
    play.setAttribute("aria-label", "pause");
    lapse.timer = setInterval(() => Number(slider.value) < frames.length - 1 ? show(Number(slider.value) + 1) : stop(), PLAY_MS);
  });
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  root.addEventListener("keydown", event => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!move || event.target.type === "checkbox") return;
    event.preventDefault();
    stop();
    show(Math.min(frames.length - 1, Math.max(0, Number(slider.value) + move)));
  });
  return lapse;
});
function nearest(frames, images) {
  let best = 0;
  frames.forEach((frame, number) => { if (Math.abs(frame.images - images) < Math.abs(frames[best].images - images)) best = number; });
  return best;
}
for (const lapse of lapses) if (lapse.frames.length) lapse.show(lapse.frames.length - 1, false);

for (const [group, members] of Object.entries(data.panels)) members.forEach((panel, number) => {
  const id = `${group}-${number}`, div = document.querySelector(`[data-plot="${id}"]`);
  panels.set(id, {panel, div});
  draw(id);
  link(div);
  document.querySelector(`[data-log="${id}"]`).addEventListener("change", () => draw(id));
});
curves();

document.getElementById("axis").addEventListener("change", event => {
  state.axis = event.target.value;
  for (const {div} of panels.values()) div.zoom = null;
  drawAll();
});
document.getElementById("smooth").addEventListener("input", event => {
  state.smooth = Number(event.target.value);
  for (const [id, {panel}] of panels) if (!panel.is_measured) draw(id);
});
document.getElementById("marks").addEventListener("change", event => { state.marks = event.target.checked; drawAll(); });
for (const button of all("[data-run]")) button.addEventListener("click", () => {
  const run = Number(button.dataset.run);
  state.hidden.has(run) ? state.hidden.delete(run) : state.hidden.add(run);
  button.setAttribute("aria-pressed", String(!state.hidden.has(run)));
  drawAll();
});
const dark = matchMedia("(prefers-color-scheme: dark)");
document.getElementById("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  drawAll();
});
dark.addEventListener("change", drawAll);
document.documentElement.dataset.ready = "yes";
})();
