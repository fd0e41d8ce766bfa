"use strict";
// A user study in one page: consent, groups of samples, progress kept in the browser, answers as JSON.

const S = window.STUDY;
const main = document.getElementById("main");
const STORE = `study-${S.study}`;

// ---- random numbers that depend on the study's seed and the participant only (xmur3 into mulberry32)
function stream(text) {
  let h = 1779033703 ^ text.length;
  for (let i = 0; i < text.length; i++) { h = Math.imul(h ^ text.charCodeAt(i), 3432918353); h = (h << 13) | (h >>> 19); }
  return () => {
    h = (h + 0x6d2b79f5) | 0;
    let t = Math.imul(h ^ (h >>> 15), 1 | h);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(list, random) {
  const copy = list.slice();
  for (let i = copy.length - 1; i > 0; i--) { const j = Math.floor(random() * (i + 1)); [copy[i], copy[j]] = [copy[j], copy[i]]; }
  return copy;
}

// ---- what this participant sees: samples of one video together, in an order of their own; checks in between
function plan(participant) {
  const random = stream(`${S.seed}|${participant}`);
  const groups = shuffled(S.groups, random).slice(0, S.per_person).map((group) => shuffled(group, random));
  const trials = groups.flat().map((sample) => ({ ...sample, check: null }));
  const steps = S.words.scale.length;
  for (let i = 0; i < S.checks && trials.length; i++) {
    const at = Math.floor(((i + 0.3 + 0.4 * random()) / S.checks) * trials.length);
    const like = trials.filter((t) => !t.check)[Math.floor(random() * groups.flat().length)];
    trials.splice(at, 0, { ...like, check: 1 + Math.floor(random() * steps) });
  }
  return trials;
}

function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const participant = new URLSearchParams(location.search).get("participant")
    ?? [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
  return { kind: "study-answers", study: S.study, participant, started: new Date().toISOString(), finished: null,
    matched: S.matched, agent: navigator.userAgent, answers: [], checks: [] };
}

function load() {
  try { const found = JSON.parse(localStorage.getItem(STORE)); if (found?.study === S.study) return found; } catch { /* begin anew */ }
  return null;
}

function keep() {
  try { localStorage.setItem(STORE, JSON.stringify(state)); } catch { /* a private window: progress is lost on reload, answers are not */ }
}

let state = load();
let trials = state ? plan(state.participant) : [];

// ---- small helpers: all text is set as text
function element(tag, text, parent, attributes = {}) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  parent?.append(made);
  return made;
}

function show() {
  const done = state ? state.answers.length + state.checks.length : 0;
  const bar = document.getElementById("progress");
  bar.hidden = !state;
  bar.max = trials.length || 1;
  bar.value = done;
  document.getElementById("where").textContent = state && done < trials.length ? `${done + 1} of ${trials.length}` : "";
  main.replaceChildren();
  window.scrollTo(0, 0);
  if (!state) welcome();
  else if (done < trials.length) trial(trials[done], done);
  else finish();
}

function welcome() {
  element("h1", S.words.title, main);
  element("p", S.words.introduction, main);
  element("h2", "Consent", main);
  element("p", S.words.consent, main);
  const label = element("label", "", main);
  const box = element("input", "", label, { type: "checkbox", id: "agree" });
  label.append(" I agree and am of age.");
  element("br", "", main);
  const begin = element("button", "Begin", main, { id: "begin", disabled: "" });
  box.addEventListener("change", () => { begin.disabled = !box.checked; });
  begin.addEventListener("click", () => { state = fresh(); trials = plan(state.participant); keep(); show(); });
}

function trial(current, position) {
  const opened = performance.now();
  let plays = 0, heard = false;
  const video = element("video", "", main, { controls: "", playsinline: "", preload: "auto", src: current.file });
  video.addEventListener("ended", () => { plays += 1; heard = true; ready(); });
  if (current.check) element("p", `A check that you are with us: please choose “${S.words.scale[current.check - 1]}” for every statement.`, main, { class: "check" });
  const form = element("form", "", main);
  for (const question of S.words.questions) {
    const set = element("fieldset", "", form);
    element("legend", question.statement, set);
    element("p", question.explanation, set);
    const scale = element("div", "", set, { class: "scale", style: `--steps:${S.words.scale.length}` });
    S.words.scale.forEach((word, step) => {
      const label = element("label", "", scale);
      element("input", "", label, { type: "radio", name: question.id, value: String(step + 1) });
      element("span", word, label);
    });
  }
  const next = element("button", "Next", form, { type: "submit", disabled: "" });
  const hint = element("span", "Watch it to the end and answer all statements.", form, { class: "hint" });
  const given = () => Object.fromEntries(S.words.questions.map((q) => [q.id, Number(new FormData(form).get(q.id)) || null]));
  function ready() {
    const all = Object.values(given()).every((value) => value !== null);
    next.disabled = !(all && heard);
    hint.textContent = next.disabled ? (heard ? "Answer all statements." : "Watch it to the end and answer all statements.") : "";
  }
  form.addEventListener("change", ready);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (next.disabled) return;
    const record = { sample: current.token, ratings: given(), position, plays, seconds: Math.round(performance.now() - opened) / 1000 };
    if (current.check) state.checks.push({ ...record, asked: current.check });
    else state.answers.push(record);
    keep();
    show();
  });
}

async function finish() {
  if (!state.finished) { state.finished = new Date().toISOString(); keep(); }
  const text = JSON.stringify(state, null, 1);
  element("h1", "Thank you", main);
  const said = element("p", "", main, { id: "said" });
  const link = element("a", "", main, { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: `answers-${state.participant}.json` });
  element("button", "Download the answers", link, { type: "button", id: "download" });
  if (S.post) {
    said.textContent = "The answers are being sent …";
    try {
      const answer = await fetch(S.post, { method: "POST", headers: { "Content-Type": "application/json" }, body: text });
      if (!answer.ok) throw new Error(String(answer.status));
      said.textContent = "The answers were sent. You may close the page.";
    } catch (error) {
      said.textContent = `The answers could not be sent (${error.message}). Please download them and send the file to who invited you.`;
    }
  } else {
    said.textContent = "Please download the answers and send the file to who invited you.";
  }
}

document.getElementById("title").textContent = S.words.title;
show();
