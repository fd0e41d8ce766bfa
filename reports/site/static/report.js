"use strict";
// Sorting of tables, and the clips page: filters, order, players, keys. No library: this is all there is.

// ---- tables that sort by a click on a heading; cells carry their value in data-sort
function sortTable(table, index, descending) {
  const body = table.tBodies[0];
  const key = (row) => {
    const cell = row.cells[index];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" ? null : Number.isNaN(number) ? text : number;
  };
  const rows = [...body.rows].map((row) => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing stays below
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return descending ? -order : order;
  });
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    head.tabIndex = 0;
    const sort = () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortTable(table, index, descending);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}

// ---- players: one element per clip, the sounds change under it
const clips = [...document.querySelectorAll("article.clip")];
const player = (clip) => clip.querySelector("video, audio");

function select(clip, key, seconds) {
  const media = player(clip);
  const button = [...clip.querySelectorAll(".switch button")].find((b) => b.dataset.key === key);
  if (!media || !button) return;
  for (const other of clip.querySelectorAll(".switch button")) other.setAttribute("aria-pressed", String(other === button));
  for (const strip of clip.querySelectorAll(".strip")) strip.classList.toggle("playing", strip.dataset.key === key);
  const at = seconds ?? media.currentTime;
  const playing = !media.paused;
  if (media.getAttribute("src") !== button.dataset.src) {
    media.addEventListener("loadedmetadata", () => { media.currentTime = at; if (playing) media.play(); }, { once: true });
    media.src = button.dataset.src;
  } else {
    media.currentTime = at;
  }
}

function follow(clip) {
  const media = player(clip);
  const head = clip.querySelector(".strip.playing .head");
  if (media && head && media.duration) head.style.left = `${(100 * media.currentTime) / media.duration}%`;
  if (media && !media.paused) requestAnimationFrame(() => follow(clip));
}

for (const clip of clips) {
  const media = player(clip);
  for (const button of clip.querySelectorAll(".switch button")) {
    button.addEventListener("click", () => { current(clip, false); select(clip, button.dataset.key); });
  }
  for (const strip of clip.querySelectorAll(".strip")) {
    strip.addEventListener("click", (event) => {
      const box = strip.querySelector(".picture").getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      current(clip, false);
      select(clip, strip.dataset.key, media && media.duration ? share * media.duration : undefined);
    });
  }
  if (!media) continue;
  clip.querySelector(".strip")?.classList.add("playing");
  media.addEventListener("play", () => {
    for (const other of clips) if (other !== clip) player(other)?.pause();
    current(clip, false);
    follow(clip);
  });
  media.addEventListener("timeupdate", () => follow(clip));
}

// ---- the current clip, and the keys
let at = null;
const visible = () => [...document.querySelectorAll("article.clip")].filter((clip) => !clip.hidden);

function current(clip, scroll = true) {
  at?.classList.remove("current");
  at = clip;
  clip.classList.add("current");
  if (scroll) { clip.scrollIntoView({ block: "start" }); clip.focus({ preventScroll: true }); }
}

function move(step) {
  const shown = visible();
  if (!shown.length) return;
  const index = shown.indexOf(at);
  const next = shown[Math.min(shown.length - 1, Math.max(0, index < 0 ? 0 : index + step))];
  if (at && at !== next) player(at)?.pause();
  current(next);
}

if (clips.length) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
    if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === " " && !event.target.matches("button, video, audio")) {
      event.preventDefault();
      if (!at) move(0);
      const media = at && player(at);
      if (media) media.paused ? media.play() : media.pause();
    }
  });
  const wanted = document.getElementById(location.hash.slice(1));
  if (wanted && clips.includes(wanted)) current(wanted);
}

// ---- filters and order
const tools = document.getElementById("tools");
if (tools) {
  const get = (id) => document.getElementById(id)?.value ?? "";
  const values = new Map(clips.map((clip) => {
    const found = new Map();
    for (const part of clip.dataset.values.split(";")) {
      const end = part.lastIndexOf("|");
      if (end > 0) found.set(part.slice(0, end), Number(part.slice(end + 1)));
    }
    return [clip, found];
  }));
  const score = (clip) => {
    const metric = get("metric");
    const of = (model) => values.get(clip).get(`${model}|${metric}`) ?? null;
    const first = of(get("model"));
    if (first === null || !get("minus")) return first;
    const second = of(get("minus"));
    return second === null ? null : first - second;
  };
  const update = () => {
    const text = get("find").toLowerCase();
    for (const clip of clips) {
      const data = clip.dataset;
      const fits = (!text || `${data.id} ${data.text} ${data.label}`.toLowerCase().includes(text))
        && (!get("label") || data.label === get("label"))
        && (!get("reason") || data.reasons.split(" ").includes(get("reason")));
      clip.hidden = !fits;
    }
    const metric = get("metric");
    const sign = (window.UP[metric] ? 1 : -1) * (get("order") === "best" ? -1 : 1);
    const order = clips.map((clip) => [metric ? score(clip) : Number(clip.dataset.order), clip]);
    order.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return metric ? sign * (a - b) : a - b;
    });
    document.getElementById("clips").append(...order.map(([, clip]) => clip));
    document.getElementById("count").textContent = `${visible().length} of ${clips.length} clips`;
  };
  tools.addEventListener("input", update);
  tools.addEventListener("submit", (event) => event.preventDefault());
  update();
}
