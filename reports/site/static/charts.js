"use strict";
// Charts of the pages compare and distributions, drawn by Plotly from data.js.

const R = window.REPORT;
const COLOURS = ["#1f5f99", "#c2571a", "#2e7d4f", "#7b4ea3", "#a8324a", "#6b5b2a", "#3b8ea5", "#555f6b"];
const colour = (index) => COLOURS[index % COLOURS.length];
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const get = (id) => document.getElementById(id);
const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };

function layout(x, y, more = {}) {
  return {
    margin: { l: 55, r: 15, t: 34, b: 50 }, font: { family: "system-ui, sans-serif", size: 12, color: "#1b232d" },
    paper_bgcolor: "#fff", plot_bgcolor: "#fff", hovermode: "closest",
    xaxis: { title: { text: plain(x) }, gridcolor: "#e6eaee", zerolinecolor: "#b8c1ca", automargin: true },
    yaxis: { title: { text: plain(y) }, gridcolor: "#e6eaee", zerolinecolor: "#b8c1ca", automargin: true },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, ...more,
  };
}

const unit = (metric) => (metric.unit ? `${metric.name} (${metric.unit})` : metric.name);
const metric = () => R.metrics.find((m) => m.name === get("metric").value);
const model = (key) => R.models.find((m) => m.key === key);

function open(event) {
  const clip = event.points[0]?.customdata;
  if (clip) window.location.href = `clips.html#${clip}`;
}

function draw(id, traces, options) {
  const first = !get(id).dataset.drawn;
  Plotly.react(id, traces, options, CONFIG);
  if (first) { get(id).dataset.drawn = "yes"; get(id).on("plotly_click", open); }
}

function compare() {
  const m = metric(), a = model(get("first").value), b = model(get("second").value);
  const points = R.clips.map((clip, i) => [R.values[a.key][m.name][i], R.values[b.key][m.name][i], clip])
    .filter(([x, y]) => x !== null && y !== null);
  const marker = (of) => ({ size: 8, color: of.map((p) => (p[2].anchor ? colour(0) : "#fff")), line: { width: 1, color: colour(0) } });
  const names = (of) => of.map((p) => plain(p[2].label ? `${p[2].id} · ${p[2].label}` : p[2].id));
  const all = points.flatMap(([x, y]) => [x, y]);
  const ends = [Math.min(...all), Math.max(...all)];
  draw("scatter", [
    { x: ends, y: ends, mode: "lines", line: { color: "#b8c1ca", dash: "dot" }, hoverinfo: "skip", showlegend: false },
    { x: points.map((p) => p[0]), y: points.map((p) => p[1]), text: names(points), customdata: points.map((p) => p[2].anchor),
      mode: "markers", type: "scatter", marker: marker(points), showlegend: false, hovertemplate: "%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>" },
  ], layout(`${unit(m)}, ${a.name}`, `${unit(m)}, ${b.name}`));
  const sorted = points.slice().sort((p, q) => p[0] - p[1] - (q[0] - q[1]));
  draw("difference", [
    { x: sorted.map((_, i) => i + 1), y: sorted.map((p) => p[0] - p[1]), text: names(sorted), customdata: sorted.map((p) => p[2].anchor),
      mode: "markers", type: "scatter", marker: marker(sorted), showlegend: false, hovertemplate: "%{text}<br>%{y:+.4g}<extra></extra>" },
  ], layout(`clips, sorted; ${m.up ? "above" : "below"} 0 the first is better`, `${a.name} − ${b.name}`));
}

function distributions() {
  const m = metric();
  draw("sorted", R.models.filter((o) => R.curves[o.key][m.name]).map((o, i) => {
    const curve = R.curves[o.key][m.name];
    return { x: curve.map((_, k) => (curve.length > 1 ? (100 * k) / (curve.length - 1) : 50)), y: curve, name: plain(o.name),
      mode: "lines", line: { color: colour(i) }, hovertemplate: "%{x:.0f} %: %{y:.4g}<extra></extra>" };
  }), layout("share of the clips (%)", unit(m)));
  const classes = R.classes[m.name];
  draw("classes", classes.names.length ? R.models.map((o, i) => (
    { x: classes.names.map(plain), y: classes.means[o.key], name: plain(o.name), type: "bar", marker: { color: colour(i) } }
  )) : [], layout(classes.names.length ? "" : "the clips have no class", `mean ${unit(m)}`, { barmode: "group" }));
  const offsets = R.models.filter((o) => R.offsets[o.key]);
  get("offsets-part").hidden = !offsets.length;
  if (!offsets.length) return;
  const grid = Array.from({ length: 21 }, (_, i) => (i - 10) / 5);
  draw("offsets", offsets.map((o, i) => {
    const counts = Object.values(R.offsets[o.key])[0];
    const at = new Map(Object.entries(counts).map(([k, v]) => [Math.round(Number(k) * 5), v]));
    return { x: grid, y: grid.map((g) => at.get(Math.round(g * 5)) ?? 0), name: plain(o.name), type: "bar", marker: { color: colour(i) } };
  }), layout("offset of the sound (s)", "crops", { barmode: "group" }));
}

const page = get("scatter") ? compare : get("sorted") ? distributions : null;
if (page && R.metrics.length) {
  for (const element of document.querySelectorAll(".tools select")) element.addEventListener("input", page);
  page();
}
