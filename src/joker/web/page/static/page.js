// Without JavaScript, the form loads a new page with the jokes. With it, they are streamed into this
// page, and the punchline follows after a pause. The model's output is inserted as text only.

const BEAT_MS = 1500;
const DOUBLE_CLICK_MS = 500;
const NOTE_MS = 4000;
const RETRY_MS = 2000;
const REFUSED = "/problems/refused";
const FOR_PROGRAMS = / \(rejected drafts|; /; // The counts and the advice after a reason.
const MAX_SAVED = 200;
const AT_ONCE = "joker.at-once";
const FAVORITES = "joker.favorites"; // In this browser, until cleared.
const VISIT = "joker.visit"; // In this tab: jokes that were told, the latest first.
const READY = "joker.ready"; // In this tab: jokes that the server sent and that are not shown yet.

const byId = (id) => document.getElementById(id);
const form = byId("ask");
const list = byId("jokes");
const again = byId("again");
const harder = byId("harder");
const stop = byId("stop");
const atOnce = byId("at-once");
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

let current = null; // The request in progress; see ask().
let lastAsked = -Infinity;

// --- messages

function showStatus(text, wrong = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("wrong", wrong);
}

// Notes are visible wherever the page is scrolled to.
function showNote(text, wrong = false) {
  const element = byId("note");
  element.textContent = text;
  element.classList.toggle("wrong", wrong);
  clearTimeout(showNote.timer);
  showNote.timer = setTimeout(() => (element.textContent = ""), NOTE_MS);
}

function toSentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
}

// --- storage; the page also works if the browser forbids it

const storages = () => ({
  [AT_ONCE]: localStorage,
  [FAVORITES]: localStorage,
  [VISIT]: sessionStorage,
  [READY]: sessionStorage,
});

function load(key, fallback) {
  try {
    return JSON.parse(storages()[key].getItem(key)) ?? fallback;
  } catch {
    return fallback;
  }
}

function save(key, value) {
  try {
    storages()[key].setItem(key, JSON.stringify(value));
  } catch {
    // Storage is forbidden or full.
  }
}

const isSame = (one, other) =>
  one.id && other.id ? one.id === other.id : one.question === other.question && one.answer === other.answer;

function addJoke(key, joke) {
  const others = load(key, []).filter((other) => !isSame(other, joke));
  save(key, [joke, ...others].slice(0, MAX_SAVED));
}

function updateJoke(key, joke) {
  save(
    key,
    load(key, []).map((other) => (isSame(other, joke) ? joke : other)),
  );
}

function removeJoke(key, joke) {
  save(
    key,
    load(key, []).filter((other) => !isSame(other, joke)),
  );
}

// --- cards

function makeCard(joke) {
  const card = byId("card").content.firstElementChild.cloneNode(true);
  bindCard(card);
  if (joke) {
    fillCard(card, joke);
    reveal(card);
  }
  return card;
}

function bindCard(card) {
  card.querySelectorAll(".copy, .favorite").forEach((button) => (button.hidden = false));
  card.querySelector(".copy").addEventListener("click", () => copyText(textOf(card), "Copied."));
  card.querySelector(".share").addEventListener("click", () => shareLink(card));
  card.querySelector(".picture").addEventListener("click", (event) => sharePicture(event, card));
  card.querySelector(".favorite").addEventListener("click", () => toggleFavorite(card));
  card.querySelector(".votes").addEventListener("submit", (event) => vote(event, card));
  card.querySelector(".punchline").addEventListener("toggle", () => onReveal(card));
  showParts(card, readCard(card));
}

// Returns the joke that a card shows.
function readCard(card) {
  const { id, link, model, picked, original } = card.dataset;
  return {
    id: id || null,
    link: link || null,
    model,
    question: card.querySelector(".question").textContent,
    answer: card.querySelector(".answer").textContent,
    picked: JSON.parse(picked),
    original: JSON.parse(original),
    vote: card.dataset.vote || null,
    votes: Object.fromEntries(
      ["up", "down"].map((value) => [value, Number(voteCount(card, value).textContent)]),
    ),
  };
}

const voteCount = (card, value) => card.querySelector(`button[value=${value}] .count`);

function fillCard(card, joke) {
  card.dataset.id = joke.id ?? "";
  card.dataset.link = joke.link ?? "";
  card.dataset.model = joke.model ?? "";
  card.dataset.picked = joke.picked ?? false;
  card.dataset.original = joke.original ?? null;
  card.querySelector(".question").textContent = joke.question;
  card.querySelector(".answer").textContent = joke.answer;
  card.querySelector(".model").textContent = joke.model ?? "";
  card.querySelector(".link").href = joke.link ?? "";
  card.querySelector(".picture").href = `${joke.link}/image.png`;
  card.querySelector(".votes").action = `${joke.link}/votes`;
  for (const value of ["up", "down"]) voteCount(card, value).textContent = joke.votes?.[value] || "";
  showVote(card, joke.vote);
  showParts(card, joke);
  return card;
}

function showParts(card, joke) {
  const parts = {
    stored: Boolean(joke.link), // Others cannot be shared or voted on.
    picked: Boolean(joke.picked),
    unpicked: !joke.picked,
    original: joke.original === true,
    retold: joke.original === false,
  };
  for (const [name, shown] of Object.entries(parts)) {
    card.querySelectorAll(`.if-${name}`).forEach((part) => (part.hidden = !shown));
  }
  const favorite = load(FAVORITES, []).some((other) => isSame(other, joke));
  card.querySelector(".favorite").setAttribute("aria-pressed", favorite);
}

function reveal(card) {
  const answer = card.querySelector(".answer");
  answer.textContent = answer.textContent; // Makes screen readers announce it now.
  card.querySelector(".punchline").open = true;
  card.classList.remove("waiting");
  onReveal(card);
}

// The visitor has opened the punchline, or the pause is over.
function onReveal(card) {
  if (card.classList.contains("waiting") || !card.querySelector(".punchline").open) return;
  const hadFocus = card.querySelector("summary") === document.activeElement;
  card.classList.add("told");
  if (hadFocus) card.querySelector(".answer").focus();
  if (card.parentElement === list) {
    addJoke(VISIT, readCard(card));
    showSaved();
  }
}

function showSaved() {
  const shown = [...list.children].map(readCard);
  const told = load(VISIT, []).filter((joke) => !shown.some((other) => isSame(other, joke)));
  for (const [id, jokes] of [
    ["favorites", load(FAVORITES, [])],
    ["visit", told],
  ]) {
    const section = byId(id);
    section.hidden = jokes.length === 0;
    section.querySelector(".count").textContent = jokes.length;
    section.querySelector("ol").replaceChildren(...jokes.map(makeCard));
  }
}

// --- favorites, copies, links and pictures

function toggleFavorite(card) {
  const joke = readCard(card);
  const button = card.querySelector(".favorite");
  const liked = button.getAttribute("aria-pressed") !== "true";
  (liked ? addJoke : removeJoke)(FAVORITES, joke);
  showNote(liked ? "Added to your favorites." : "Removed from your favorites.");
  const inside = byId("favorites").contains(card);
  showSaved();
  list.querySelectorAll(".joke").forEach((other) => showParts(other, readCard(other)));
  if (inside) (byId("favorites").hidden ? again : byId("favorites").firstElementChild).focus();
}

function textOf(card) {
  return [".question", ".answer"].map((part) => card.querySelector(part).textContent).join("\n");
}

async function copyText(text, message) {
  try {
    await navigator.clipboard.writeText(text);
    showNote(message);
  } catch {
    // Browsers hide the clipboard without HTTPS; the text can still be copied from here.
    prompt("Copy this:", text);
  }
}

async function shareLink(card) {
  const url = new URL(card.dataset.link, location.href).href;
  if (!navigator.share) return copyText(url, "Link copied.");
  try {
    await navigator.share({ text: card.querySelector(".question").textContent, url });
  } catch (error) {
    if (error.name !== "AbortError") await copyText(url, "Link copied.");
  }
}

// Phones share the picture itself; elsewhere the link opens it.
async function sharePicture(event, card) {
  const sample = new File([], "joke.png", { type: "image/png" });
  if (!navigator.canShare?.({ files: [sample] })) return;
  event.preventDefault();
  const link = event.currentTarget.href;
  try {
    const picture = await (await fetch(link)).blob();
    await navigator.share({ files: [new File([picture], "joke.png", { type: "image/png" })] });
  } catch (error) {
    if (error.name !== "AbortError") location.assign(link);
  }
}

// --- votes

const THANKS = {
  up: "Thanks, glad you liked it.",
  down: "Thanks, noted.",
  report: "Reported and hidden. Vote again to undo.",
};

async function vote(event, card) {
  event.preventDefault();
  const chosen = event.submitter.value;
  try {
    const response = await fetch(event.target.action, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ vote: chosen }),
    });
    const body = await response.json();
    if (!response.ok) return showNote(toSentence(body.detail), true);
    for (const shown of document.querySelectorAll(`.joke[data-id="${card.dataset.id}"]`)) {
      for (const value of ["up", "down"]) voteCount(shown, value).textContent = body[value] || "";
      showVote(shown, chosen);
    }
    for (const key of [FAVORITES, VISIT]) updateJoke(key, readCard(card));
    showNote(THANKS[chosen]);
  } catch {
    showNote("Your vote could not be sent. Try again in a moment.", true);
  }
}

function showVote(card, chosen) {
  card.dataset.vote = chosen ?? "";
  for (const button of card.querySelector(".votes").elements) {
    button.setAttribute("aria-pressed", button.value === chosen);
  }
  card.classList.toggle("reported", chosen === "report");
}

// --- asking

async function ask(event) {
  event.preventDefault();
  const effort = event.submitter === harder ? Number(harder.value) : undefined;
  const params = {
    prompt: byId("prompt").value,
    n: byId("count").valueAsNumber,
    safe: !byId("unsafe").checked,
    effort,
  };
  const doubleClick = performance.now() - lastAsked < DOUBLE_CLICK_MS;
  const waiting = current && !current.arrived;
  if (doubleClick || (waiting && JSON.stringify(current.params) === JSON.stringify(params))) return;
  lastAsked = performance.now();
  abandon();
  const request = {
    params,
    controller: new AbortController(),
    cards: [],
    hideHarder: false,
    missing: [...Array(params.n).keys()], // Indexes of the jokes that have not arrived.
    pending: Promise.resolve(), // Jokes are shown one after another.
    previous: { heading: byId("heading").textContent, cards: [...list.children] },
    button: event.submitter ?? byId("tell"),
  };
  current = request;
  document.querySelector(".ways")?.remove();
  list.replaceChildren();
  byId("heading").textContent = "";
  again.textContent = "Another one";
  cardAt(request, 0);
  list.setAttribute("aria-busy", "true");
  scrollToStage();
  const plain = params.prompt.trim() === "" && params.n === 1 && params.safe && !effort;
  if (!(plain && (await takeReady(request)))) await fetchJokes(request);
}

// The stage may be scrolled out of view, or behind a phone's keyboard.
function scrollToStage() {
  if (matchMedia("(pointer: coarse)").matches) byId("prompt").blur();
  if (byId("stage").getBoundingClientRect().top >= 0) return;
  byId("stage").scrollIntoView({ behavior: reducedMotion.matches ? "auto" : "smooth" });
}

// Shows a joke that the server has already sent; returns whether there was one.
async function takeReady(request) {
  const [joke, ...others] = load(READY, []);
  if (!joke) return false;
  save(READY, others);
  request.hideHarder = true;
  await tell(request, { ...joke, index: 0 });
  finish(request);
  return true;
}

// If the connection is lost, requests the missing jokes once more.
async function fetchJokes(request) {
  await stream(request);
  if (current === request && request.outcome === undefined) {
    showProgress(request, "The connection was lost. Trying again…");
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    cancelJob(request);
    await stream(request);
  }
  finish(request, request.outcome ?? "The connection was lost. Try again in a moment.");
}

async function stream(request) {
  const { prompt, safe, effort } = request.params;
  const positions = request.missing; // Where the response's jokes go on the page.
  const query = new URLSearchParams({ prompt, n: positions.length, safe, ...(effort && { effort }) });
  try {
    const response = await fetch(`/joke?${query}`, {
      headers: { Accept: "text/event-stream" },
      signal: request.controller.signal,
    });
    if (!response.ok) {
      const problem = await response.json();
      request.outcome = problem.detail;
      // Trying harder helps only if all drafts were rejected, not if the prompt itself was.
      request.hideHarder ||= problem.type !== REFUSED || Boolean(problem.errors);
    } else for await (const { event, data } of readEvents(response)) handleEvent(request, event, data, positions);
  } catch {
    // The connection was lost; the jokes that have arrived are shown.
  }
  await request.pending;
  if (request.missing.length === 0) request.outcome = "";
}

// Yields server-sent events.
async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const { event, data } = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      if (data) yield { event, data: JSON.parse(data) }; // Comments keep the connection open.
    }
  }
}

function handleEvent(request, event, data, positions) {
  const index = positions[data.index];
  if (event === "partial") showDraft(request, { ...data, index });
  if (event === "joke") {
    request.missing = request.missing.filter((position) => position !== index);
    request.pending = request.pending.then(() => tell(request, { ...data, index }));
  }
  if (event !== "state") return;
  request.taskId = data.task_id;
  if (current !== request) return abort(request);
  if (data.state === "PENDING") showProgress(request, "Waiting for the model…");
  if (data.state === "STARTED") showProgress(request, progressMessage(request.params));
  if (data.state === "SUCCESS") request.outcome = "";
  if (data.state === "FAILURE") request.outcome = data.error;
  if (data.refused) request.outcome = `${data.error.split(FOR_PROGRAMS)[0]}; ${form.dataset.advice}`;
  if (data.state === "REVOKED") request.outcome = "the joke was cancelled";
  request.hideHarder = request.taskId === null || (data.state === "FAILURE" && !data.refused);
  if (request.outcome !== undefined) request.taskId = null; // It has ended.
}

function progressMessage({ effort, n }) {
  const singleDraft = Number(form.dataset.drafts) === 1;
  if (singleDraft && !effort) return n > 1 ? "Writing the jokes…" : "Writing the joke…";
  const drafts = effort ? "Trying harder: many more drafts" : `Writing ${form.dataset.drafts} drafts`;
  return n > 1 ? `${drafts} of each joke. The best ones follow.` : `${drafts}. The best one follows.`;
}

// Shows what is happening, the elapsed time and the stop button.
function showProgress(request, message) {
  showStatus(message);
  stop.hidden = false;
  const startedAt = Date.now();
  request.timer ??= setInterval(() => {
    byId("seconds").textContent = `${Math.round((Date.now() - startedAt) / 1000)} s`;
  }, 1000);
}

function cardAt(request, index) {
  if (!request.cards[index]) {
    request.cards[index] = makeCard();
    request.cards[index].classList.add("waiting");
    request.cards[index].querySelector("summary").inert = true;
    list.append(request.cards[index]);
  }
  return request.cards[index];
}

function showDraft(request, { index, question, answer }) {
  if (current !== request) return;
  const card = cardAt(request, index);
  card.querySelector(".question").textContent = question;
  card.querySelector(".answer").textContent = answer;
  card.querySelector(".punchline").open = atOnce.checked;
  card.classList.toggle("live", atOnce.checked);
}

async function tell(request, joke) {
  if (current !== request) return;
  const card = cardAt(request, joke.index);
  fillCard(card, joke);
  card.querySelector("summary").inert = false;
  if (request.params.n === 1) {
    request.arrived = true;
    hideProgress(request);
  }
  list.setAttribute("aria-busy", "false");
  showStatus("");
  await beat(card);
  if (current !== request) return;
  reveal(card);
}

// The pause before a punchline; opening it ends the pause. The punchline is already laid out but
// invisible, so that nothing moves when it appears.
async function beat(card) {
  if (atOnce.checked || reducedMotion.matches) return;
  card.classList.add("waiting");
  card.querySelector(".punchline").open = true;
  await new Promise((resolve) => {
    setTimeout(resolve, BEAT_MS);
    const skip = (event) => {
      event.preventDefault(); // The browser would close the open <details>.
      resolve();
    };
    card.querySelector("summary").addEventListener("click", skip, { once: true });
  });
}

function finish(request, error) {
  if (current !== request) return;
  current = null;
  hideProgress(request);
  list.querySelectorAll(".waiting").forEach((card) => card.remove());
  if (list.childElementCount) {
    pushPage(request);
  } else {
    byId("heading").textContent = request.previous.heading;
    list.replaceChildren(...request.previous.cards);
  }
  const lost = request.outcome === undefined && error !== undefined;
  again.hidden = list.childElementCount === 0 && !lost;
  again.textContent = lost ? "Try again" : "Another one";
  harder.hidden = request.hideHarder || lost;
  showStatus(error ? toSentence(error) : "", Boolean(error));
  showSaved();
}

function hideProgress(request) {
  clearInterval(request.timer);
  byId("seconds").textContent = "";
  list.setAttribute("aria-busy", "false");
  if (document.activeElement === stop) request.button.focus();
  stop.hidden = true;
}

function abort(request) {
  request.controller.abort();
  cancelJob(request);
}

// NGINX Unit does not tell the server that a client has disconnected.
function cancelJob(request) {
  const { taskId } = request;
  if (taskId) fetch(`/generate/${taskId}`, { method: "DELETE", keepalive: true }).catch(() => {});
  request.taskId = null;
}

function abandon() {
  const request = current;
  if (!request) return;
  abort(request);
  hideProgress(request);
  current = null;
}

function stopAsking() {
  const request = current;
  if (!request) return;
  abort(request);
  finish(request);
  showStatus("Stopped.");
}

// --- history: each joke has its own URL, so that back, forward and reload show it again

function pageState(prompt, hideHarder) {
  const heading = byId("heading").textContent;
  return { prompt, heading, jokes: [...list.children].map(readCard), hideHarder };
}

function urlOf({ jokes }) {
  return jokes.length === 1 && jokes[0].link ? jokes[0].link : "/";
}

function pushPage(request) {
  const page = pageState(request.params.prompt, request.hideHarder);
  // A page without a joke is not worth going back to.
  const method = request.previous.cards.length ? "pushState" : "replaceState";
  history[method](page, "", urlOf(page));
}

function restorePage(page) {
  byId("prompt").value = page.prompt;
  byId("heading").textContent = page.heading;
  const told = load(VISIT, []); // Has later votes.
  const latest = (joke) => told.find((other) => isSame(other, joke)) ?? joke;
  list.replaceChildren(...page.jokes.map(latest).map(makeCard));
  again.hidden = list.childElementCount === 0;
  again.textContent = "Another one";
  harder.hidden = page.hideHarder || again.hidden;
  showStatus("");
  showSaved();
}

// --- start

function start() {
  const cards = [...list.querySelectorAll(".joke")];
  cards.forEach(bindCard);
  const { permanent } = document.body.dataset;
  const fresh = cards.length === 1 && permanent === undefined && location.pathname === "/";
  const known = history.state?.jokes?.length && !history.state.served;
  if (known && !byId("status").classList.contains("wrong")) {
    // After a reload, show the same joke again, and keep the new one for later.
    if (fresh) save(READY, [...load(READY, []), readCard(cards[0])]);
    return restorePage(history.state);
  }
  const saved = [...load(VISIT, []), ...load(FAVORITES, [])]; // The server sends no visitor's own votes.
  for (const card of cards) showVote(card, saved.find((joke) => isSame(joke, readCard(card)))?.vote);
  if (cards.length) {
    const page = pageState(byId("prompt").value, harder.hidden);
    const fromForm = location.pathname === "/joke"; // Reloading it would ask again.
    // The jokes at other URLs come from the server, not from the history.
    const served = !fromForm && location.pathname !== "/";
    history.replaceState({ ...page, served }, "", fromForm ? urlOf(page) : location.href);
  }
  if (cards.length === 1 && (permanent === undefined || atOnce.checked)) {
    beat(cards[0]).then(() => reveal(cards[0]));
  }
  cards.forEach(onReveal);
  showSaved();
  if (document.body.dataset.eager !== undefined) form.requestSubmit(byId("tell"));
}

document.querySelectorAll(".js-only").forEach((element) => (element.hidden = false));
atOnce.checked = load(AT_ONCE, false);
atOnce.addEventListener("change", () => save(AT_ONCE, atOnce.checked));
for (const [id, key] of [
  ["favorites", FAVORITES],
  ["visit", VISIT],
]) {
  byId(id)
    .querySelector("p button")
    .addEventListener("click", () => {
      save(key, []);
      showSaved();
      list.querySelectorAll(".joke").forEach((card) => showParts(card, readCard(card)));
      byId("prompt").focus();
    });
}
document.querySelector(".starts").addEventListener("click", (event) => {
  const { start } = event.target.dataset;
  if (!start || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  byId("prompt").value = start;
  form.requestSubmit(byId("tell"));
});
form.addEventListener("submit", ask);
stop.addEventListener("click", stopAsking);
byId("count").addEventListener("invalid", () => (byId("options").open = true));
addEventListener("pagehide", stopAsking);
addEventListener("popstate", (event) => {
  abandon();
  if (event.state) restorePage(event.state);
});
start();
