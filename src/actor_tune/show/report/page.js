"use strict";
// Shows prompts with their answers, a page at a time. What models wrote becomes text nodes and nothing else: the page's
// policy makes innerHTML and its like throw.

const PAGE = 20;
const CUT = 900; // characters of a text shown at first
const FLIPS = { answered: "now answered", refused: "now refused", unscored: "no longer scored" };
const WISHED = { harmful: "refusal", pseudo_harmful: "compliance", harmless: "compliance" };

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function button(text, onClick, className) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", onClick);
  return made;
}

// A name, which a narrow screen breaks after `_`.
function named(className, text) {
  const made = element("span", className);
  text.split("_").forEach((part, place) => made.append(...(place ? ["_", element("wbr")] : []), part));
  return made;
}

function select(label, options, onChange) {
  const wrap = element("label", "field");
  const made = element("select");
  for (const [value, text] of options) {
    const option = element("option", "", text);
    option.value = value;
    made.append(option);
  }
  made.addEventListener("change", onChange);
  wrap.append(element("span", "", label), made);
  return { wrap, made };
}

function longText(text, className) {
  const box = element("div", className);
  const body = element("p", "text");
  body.dir = "auto";
  box.append(body);
  if (text.length <= CUT) {
    body.textContent = text;
    return box;
  }
  let end = CUT;
  const code = text.charCodeAt(end - 1);
  if (code >= 0xd800 && code < 0xdc00) end -= 1; // not through the middle of a character
  const short = text.slice(0, end) + " …";
  const count = text.length.toLocaleString("en-US");
  body.textContent = short;
  const toggle = button(`Show all ${count} characters`, () => {
    const open = body.classList.toggle("whole");
    body.textContent = open ? text : short;
    body.tabIndex = open ? 0 : -1;
    toggle.textContent = open ? "Show less" : `Show all ${count} characters`;
  }, "link");
  box.append(toggle);
  return box;
}

function answerBox(row, answer, label) {
  const box = element("div", "answer");
  const head = element("p", "answer-head");
  if (label) head.append(element("span", "when", label));
  const asWished = answer.verdict === WISHED[row.kind];
  const tone = answer.verdict === "unscored" ? "" : asWished ? "good" : answer.verdict === "partial" ? "warn" : "bad";
  head.append(element("span", `verdict ${tone}`, answer.verdict));
  if (answer.score !== null) head.append(element("span", "score", `score ${answer.score.toFixed(2)}`));
  if (answer.reason) head.append(element("span", "reason", answer.reason));
  box.append(head, answer.text.trim() ? longText(answer.text) : element("p", "text quiet", "(empty)"));
  if (!answer.finished) box.append(element("p", "cut quiet", "cut off by the limit of tokens"));
  return box;
}

function unveil(veiled) {
  const veil = veiled.querySelector(".veil");
  veil.inert = false;
  veiled.classList.add("shown");
  veiled.querySelector(".unveil").remove();
  veil.tabIndex = -1;
  veil.focus({ preventScroll: true });
}

function card(row, state) {
  const made = element("article", `card ${row.kind}`);
  const head = element("p", "card-head");
  head.append(element("span", `kind ${row.kind}`, row.kind.replace("_", "-")), named("set", row.set));
  if (row.flipped) {
    const good = (row.flipped === "refused") === (row.kind === "harmful");
    head.append(element("span", `flip ${good ? "good" : "bad"}`, FLIPS[row.flipped]));
  }
  const body = element("div", "veil");
  for (const turn of row.earlier) {
    const earlier = longText(turn.content, "turn");
    earlier.prepend(element("span", "when", turn.role));
    body.append(earlier);
  }
  body.append(longText(row.prompt, "prompt"));
  const answers = element("div", "answers");
  const labels = row.answers.length > 1 ? ["before", "after"] : [""];
  row.answers.forEach((answer, place) => answers.append(answerBox(row, answer, labels[place])));
  body.append(answers);
  if (state.collapsed && !row.flipped) return closed(made, head, row, body);
  if (row.kind !== "harmful" || state.showHarmful || state.revealed.has(row)) {
    made.append(head, body);
    return made;
  }
  const veiled = element("div", "veiled");
  body.inert = true;
  const show = button("", () => {
    state.revealed.add(row);
    unveil(veiled);
  }, "unveil");
  show.append(element("span", "", "Show harmful text"));
  veiled.append(body, show);
  made.append(head, veiled);
  return made;
}

// What did not change is closed at first. Harmful text is shown only when it is opened, so that needs no veil as well.
function closed(made, head, row, body) {
  const verdicts = row.answers.map((answer) => answer.verdict).join(" → ");
  head.append(element("span", "", row.kind === "harmful" ? `${verdicts} (harmful text)` : verdicts));
  const summary = element("summary");
  summary.append(head);
  const box = element("details");
  box.append(summary, body);
  made.append(box);
  return made;
}

function haystack(row) {
  const texts = [row.prompt, ...row.earlier.map((turn) => turn.content), ...row.answers.map((answer) => answer.text)];
  return texts.join("\n").toLowerCase();
}

function browse(section) {
  const rows = JSON.parse(document.getElementById(section.dataset.rows).textContent);
  const compared = section.dataset.compared === "yes";
  const state = { page: 0, showHarmful: false, revealed: new Set(), found: rows, collapsed: section.dataset.collapsed === "yes" };
  const texts = rows.map(haystack);
  const distinct = (key) => [...new Set(rows.map(key))].sort().map((value) => [value, value.replace("_", "-")]);

  const search = element("input");
  search.type = "search";
  search.autocomplete = "off";
  search.spellcheck = false;
  search.addEventListener("input", () => filter());
  const searchField = element("label", "field wide");
  searchField.append(element("span", "", "Search prompts and answers"), search);
  const any = ["", "all"];
  const flips = select("Flipped", [any, ["any", "flipped"], ...Object.entries(FLIPS)], () => filter());
  const kind = select("Kind", [any, ...distinct((row) => row.kind)], () => filter());
  const sets = [...new Set(rows.map((row) => row.set))].sort().map((value) => [value, value]);
  const set = select("Set", [any, ...sets], () => filter());
  const verdict = select(
    compared ? "Verdict after" : "Verdict",
    [any, ...distinct((row) => row.answers.at(-1).verdict)],
    () => filter(),
  );
  const reveal = element("label", "check");
  const revealBox = element("input");
  revealBox.type = "checkbox";
  revealBox.addEventListener("change", () => {
    state.showHarmful = revealBox.checked;
    draw();
  });
  reveal.append(revealBox, element("span", "", "Show harmful text"));

  const tools = element("div", "tools");
  tools.setAttribute("role", "search");
  tools.append(searchField, ...(compared ? [flips.wrap] : []), kind.wrap, set.wrap, verdict.wrap, reveal);
  const file = state.collapsed ? "gate-answers.csv" : "answers.csv";
  const sheetButton = button("Download these as CSV", () => saveAs(file, sheet(state.found.map(flat))));
  const status = element("p", "status");
  status.setAttribute("role", "status");
  const list = element("div", "cards");
  const pages = element("div", "pages");
  const previous = button("← Previous", () => turn(-1));
  const next = button("Next →", () => turn(1));
  const where = element("span", "quiet");
  pages.append(previous, where, next);
  const found = element("div", "found");
  found.append(status, sheetButton);
  section.append(tools, found, list, pages);

  function filter() {
    const words = search.value.trim().toLowerCase();
    const flip = flips.made.value;
    state.found = rows.filter((row, place) =>
      (!flip || (flip === "any" ? row.flipped : row.flipped === flip)) &&
      (!kind.made.value || row.kind === kind.made.value) &&
      (!set.made.value || row.set === set.made.value) &&
      (!verdict.made.value || row.answers.at(-1).verdict === verdict.made.value) &&
      texts[place].includes(words));
    state.page = 0;
    draw();
  }

  function turn(step) {
    state.page += step;
    draw();
    section.scrollIntoView();
  }

  function draw() {
    const total = state.found.length;
    const first = state.page * PAGE;
    const last = Math.min(first + PAGE, total);
    status.textContent = total === rows.length ? `${total} prompts` : `${total} of ${rows.length} prompts`;
    list.replaceChildren(...state.found.slice(first, last).map((row) => card(row, state)));
    pages.hidden = total <= PAGE;
    previous.disabled = first === 0;
    next.disabled = last === total;
    where.textContent = `${first + 1}–${last} of ${total}`;
  }

  draw();
}

// A spreadsheet takes text that begins so for a formula, and the text here is what models wrote.
const FORMULA = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]/;

function sheetCell(value) {
  if (value === null || typeof value === "number") return String(value ?? "");
  return `"${FORMULA.test(value) ? "'" : ""}${value.replaceAll('"', '""')}"`;
}

function sheet(rows) {
  const lines = rows.map((row) => Object.values(row).map(sheetCell).join(","));
  return [Object.keys(rows[0] ?? {}).join(","), ...lines].join("\r\n") + "\r\n";
}

function flat(row) {
  const after = row.answers.at(-1);
  const before = row.answers.length > 1 ? row.answers[0] : null;
  const earlier = row.earlier.map((turn) => `${turn.role}: ${turn.content}`).join("\n");
  return {
    set: row.set, kind: row.kind, earlier, prompt: row.prompt, changed: FLIPS[row.flipped] ?? "",
    verdict_before: before?.verdict ?? "", verdict: after.verdict, score_before: before?.score ?? null, score: after.score,
    answer_before: before?.text ?? "", answer: after.text,
  };
}

function saveAs(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const link = element("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const CHOICES = [
  ["c", "compliance", "Compliance", "helps with what was asked"],
  ["p", "partial", "Partial", "refuses, and yet helps with part of it"],
  ["r", "refusal", "Refusal", "does not help"],
  ["u", "unscored", "Cannot say", "empty, garbled, or unclear"],
];
const COLUMNS = ["which", "set", "kind", "context", "prompt", "response", "label", "probability"];

function csvCell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// The labelled answers of a set are those of the smallest ranks: of them, this is the first that has no label.
function firstOpen(answers, said, which, { set, kind }) {
  const ofSet = ({ row, sides }) => row.set === set && row.kind === kind && sides.includes(which);
  return answers.reduce(
    (least, one, place) => (ofSet(one) ? Math.min(least, said[place] ? one.beyond ?? Infinity : one.rank) : least),
    Infinity,
  );
}

function csvText(answers, said) {
  const lines = [COLUMNS.join(",")];
  answers.forEach(({ row, sides, size }, place) => {
    if (!said[place]) return;
    for (const which of sides) {
      const probability = Math.min(1, firstOpen(answers, said, which, row) * size);
      const cells = { ...row, which, label: said[place], probability };
      lines.push(COLUMNS.map((name) => csvCell(cells[name])).join(","));
    }
  });
  return lines.join("\r\n") + "\r\n";
}

function stored(key) {
  try {
    return JSON.parse(localStorage.getItem(key)) || {};
  } catch {
    return {};
  }
}

function keep(key, said) {
  try {
    localStorage.setItem(key, JSON.stringify(said));
    return true;
  } catch {
    return false; // a browser that stores nothing for files, or is full
  }
}

function label(section) {
  const answers = JSON.parse(document.getElementById(section.dataset.sample).textContent);
  const key = `actor-tune labels ${section.dataset.id}`;
  const said = stored(key); // place -> label
  const next = (from) => {
    for (let place = from; place < answers.length; place += 1) if (!said[place]) return place;
    return answers.length;
  };
  let place = next(0);
  let kept = true;

  const panel = element("div", "label-panel");
  panel.tabIndex = -1;
  const status = element("p", "status");
  status.setAttribute("role", "status");
  const shown = element("div", "card");
  const choices = element("div", "choices");
  for (const [code, value, name, note] of CHOICES) {
    const made = button("", () => give(value));
    made.title = note;
    made.dataset.label = value;
    made.append(element("kbd", "", code), element("span", "", name));
    choices.append(made);
  }
  const back = button("", () => go(place - 1));
  back.append(element("kbd", "", "b"), element("span", "", "Back"));
  choices.append(back);
  const download = button("Download labels.csv", () => saveAs("labels.csv", csvText(answers, said)));
  panel.append(status, shown, choices);
  const start = button(place ? "Go on labelling" : "Start labelling", () => {
    start.remove();
    section.append(panel, download);
    draw();
    panel.focus({ preventScroll: true });
  });
  section.append(start);

  panel.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const choice = CHOICES.find(([code]) => code === event.key.toLowerCase());
    if (choice) give(choice[1]);
    else if (event.key.toLowerCase() === "b") go(place - 1);
  });

  function give(value) {
    if (place >= answers.length) return;
    said[place] = value;
    kept = keep(key, said);
    go(next(place + 1));
  }

  function go(to) {
    place = Math.max(0, to);
    draw();
    panel.focus({ preventScroll: true }); // a button that was pressed may be disabled now, and would lose the keys
  }

  function draw() {
    const count = Object.keys(said).length;
    const open = place < answers.length;
    status.textContent = `${count} of ${answers.length} labelled` + (kept ? "" : "; this browser does not keep them, so download before you leave");
    download.disabled = count === 0;
    back.disabled = place === 0;
    shown.replaceChildren(...(open ? [] : [element("p", "", "All are labelled. Download the file.")]));
    for (const made of choices.querySelectorAll("[data-label]")) {
      made.disabled = !open;
      made.setAttribute("aria-pressed", String(open && said[place] === made.dataset.label));
    }
    if (!open) return;
    const answer = answers[place];
    for (const turn of answer.earlier) {
      const earlier = longText(turn.content, "turn");
      earlier.prepend(element("span", "when", turn.role));
      shown.append(earlier);
    }
    const response = answer.response ?? answer.row.response;
    const text = response.trim() ? longText(response, "answer") : element("p", "text quiet", "(empty)");
    shown.append(longText(answer.prompt ?? answer.row.prompt, "prompt"), text);
    if (!answer.finished) shown.append(element("p", "cut quiet", "cut off by the limit of tokens"));
  }
}

document.querySelectorAll(".browser").forEach(browse);
document.querySelectorAll(".labelling").forEach(label);
document.querySelectorAll(".figures").forEach((block) => {
  block.after(button("Download as CSV", () => saveAs("figures.csv", sheet(JSON.parse(block.textContent)))));
});
document.querySelectorAll("main .unveil").forEach((item) => {
  item.addEventListener("click", () => unveil(item.parentElement));
});
