// The page's behavior. Without JavaScript the form loads a new page with the jokes; with it they
// stream in, and the punchline follows after a pause. Model output is inserted as text only.

const BEAT_MS = 1500;
const DOUBLE_CLICK_MS = 500;
const NOTE_MS = 4000;
const RETRY_MS = 2000;
const REFUSED = "/problems/refused";
const FOR_PROGRAMS = / \(rejected drafts|; /; // The counts and the advice after a reason.
const MOST_KEPT = 200;
const AT_ONCE = "joker.at-once";
const FAVOURITES = "joker.favourites"; // In this browser, until cleared.
const VISIT = "joker.visit"; // In this tab: what was told, the latest first.
const READY = "joker.ready"; // In this tab: jokes that the server sent and nobody has seen yet.

const find = (id) => document.getElementById(id);
const form = find("ask");
const list = find("jokes");
const again = find("again");
const harder = find("harder");
const stop = find("stop");
const atOnce = find("at-once");
const still = matchMedia("(prefers-reduced-motion: reduce)");

let following = null; // The current request: what was asked, how to end it, and its cards.
let clicked = -Infinity; // When jokes were last asked for.

// --- what the page says

function say(text, wrong = false) {
  find("status").textContent = text;
  find("status").classList.toggle("wrong", wrong);
}

// A note is shown wherever the page is scrolled to.
function note(text, wrong = false) {
  const element = find("note");
  element.textContent = text;
  element.classList.toggle("wrong", wrong);
  clearTimeout(note.timer);
  note.timer = setTimeout(() => (element.textContent = ""), NOTE_MS);
}

function sentenceOf(text) {
  return `${text[0].toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`;
}

// --- storage; if the browser forbids it, nothing is stored

const places = () => ({
  [AT_ONCE]: localStorage,
  [FAVOURITES]: localStorage,
  [VISIT]: sessionStorage,
  [READY]: sessionStorage,
});

function recall(key, otherwise) {
  try {
    return JSON.parse(places()[key].getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function remember(key, value) {
  try {
    places()[key].setItem(key, JSON.stringify(value));
  } catch {
    // Private windows and full disks: the page works without storage.
  }
}

const same = (one, other) =>
  one.id && other.id ? one.id === other.id : one.question === other.question && one.answer === other.answer;

function keep(key, joke) {
  const others = recall(key, []).filter((other) => !same(other, joke));
  remember(key, [joke, ...others].slice(0, MOST_KEPT));
}

function update(key, joke) {
  remember(
    key,
    recall(key, []).map((other) => (same(other, joke) ? joke : other)),
  );
}

function drop(key, joke) {
  remember(
    key,
    recall(key, []).filter((other) => !same(other, joke)),
  );
}

// --- cards

function makeCard(joke) {
  const card = find("card").content.firstElementChild.cloneNode(true);
  equip(card);
  if (joke) {
    fill(card, joke);
    reveal(card);
  }
  return card;
}

function equip(card) {
  card.querySelectorAll(".copy, .favourite").forEach((button) => (button.hidden = false));
  card.querySelector(".copy").addEventListener("click", () => offer(textOf(card), "Copied."));
  card.querySelector(".share").addEventListener("click", () => shareLink(card));
  card.querySelector(".picture").addEventListener("click", (event) => sharePicture(event, card));
  card.querySelector(".favourite").addEventListener("click", () => favour(card));
  card.querySelector(".votes").addEventListener("submit", (event) => vote(event, card));
  card.querySelector(".punchline").addEventListener("toggle", () => revealed(card));
  showParts(card, read(card));
}

// The joke that a card shows.
function read(card) {
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
      ["up", "down"].map((value) => [value, Number(counter(card, value).textContent)]),
    ),
  };
}

const counter = (card, value) => card.querySelector(`button[value=${value}] .count`);

function fill(card, joke) {
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
  for (const value of ["up", "down"]) counter(card, value).textContent = joke.votes?.[value] || "";
  showVote(card, joke.vote);
  showParts(card, joke);
  return card;
}

function showParts(card, joke) {
  const parts = {
    stored: Boolean(joke.link), // A joke that could not be stored takes no votes.
    picked: Boolean(joke.picked),
    unpicked: !joke.picked,
    original: joke.original === true,
    retold: joke.original === false,
  };
  for (const [name, shown] of Object.entries(parts)) {
    card.querySelectorAll(`.if-${name}`).forEach((part) => (part.hidden = !shown));
  }
  const kept = recall(FAVOURITES, []).some((favourite) => same(favourite, joke));
  card.querySelector(".favourite").setAttribute("aria-pressed", kept);
}

function reveal(card) {
  const answer = card.querySelector(".answer");
  answer.textContent = answer.textContent; // Inserted again, so that it is read out now.
  card.querySelector(".punchline").open = true;
  card.classList.remove("waiting");
  revealed(card);
}

// Somebody has opened the punchline, or the beat is over.
function revealed(card) {
  if (card.classList.contains("waiting") || !card.querySelector(".punchline").open) return;
  const mine = card.querySelector("summary") === document.activeElement;
  card.classList.add("told");
  if (mine) card.querySelector(".answer").focus();
  if (card.parentElement === list) {
    keep(VISIT, read(card));
    showKept();
  }
}

function showKept() {
  const shown = [...list.children].map(read);
  const told = recall(VISIT, []).filter((joke) => !shown.some((other) => same(other, joke)));
  for (const [id, jokes] of [
    ["favourites", recall(FAVOURITES, [])],
    ["visit", told],
  ]) {
    const kept = find(id);
    kept.hidden = jokes.length === 0;
    kept.querySelector(".count").textContent = jokes.length;
    kept.querySelector("ol").replaceChildren(...jokes.map(makeCard));
  }
}

// --- favourites, copies, links and pictures

function favour(card) {
  const joke = read(card);
  const button = card.querySelector(".favourite");
  const liked = button.getAttribute("aria-pressed") !== "true";
  (liked ? keep : drop)(FAVOURITES, joke);
  note(liked ? "Added to your favourites." : "No longer a favourite.");
  const inside = find("favourites").contains(card);
  showKept();
  list.querySelectorAll(".joke").forEach((other) => showParts(other, read(other)));
  if (inside) (find("favourites").hidden ? again : find("favourites").firstElementChild).focus();
}

function textOf(card) {
  return [".question", ".answer"].map((part) => card.querySelector(part).textContent).join("\n");
}

async function offer(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    note(done);
  } catch {
    // Browsers hide the clipboard without HTTPS; the text can still be copied from here.
    prompt("Copy this:", text);
  }
}

async function shareLink(card) {
  const url = new URL(card.dataset.link, location.href).href;
  if (!navigator.share) return offer(url, "Link copied.");
  try {
    await navigator.share({ text: card.querySelector(".question").textContent, url });
  } catch (error) {
    if (error.name !== "AbortError") await offer(url, "Link copied.");
  }
}

// Phones hand the picture to another program; otherwise the link opens it.
async function sharePicture(event, card) {
  const shell = new File([], "joke.png", { type: "image/png" });
  if (!navigator.canShare?.({ files: [shell] })) return;
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
    const answer = await response.json();
    if (!response.ok) return note(sentenceOf(answer.detail), true);
    for (const shown of document.querySelectorAll(`.joke[data-id="${card.dataset.id}"]`)) {
      for (const value of ["up", "down"]) counter(shown, value).textContent = answer[value] || "";
      showVote(shown, chosen);
    }
    for (const key of [FAVOURITES, VISIT]) update(key, read(card));
    note(THANKS[chosen]);
  } catch {
    note("The vote did not arrive. Try again in a moment.", true);
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
  const asked = {
    prompt: find("prompt").value,
    n: find("count").valueAsNumber,
    safe: !find("unsafe").checked,
    effort,
  };
  const twice = performance.now() - clicked < DOUBLE_CLICK_MS;
  const drafting = following && !following.arrived;
  if (twice || (drafting && JSON.stringify(following.asked) === JSON.stringify(asked))) return;
  clicked = performance.now();
  leave();
  const mine = (following = {
    ...{ asked, ending: new AbortController(), cards: [], ready: false },
    missing: [...Array(asked.n).keys()],
    told: Promise.resolve(),
    before: { heading: find("heading").textContent, cards: [...list.children] },
    from: event.submitter ?? find("tell"),
  });
  document.querySelector(".ways")?.remove();
  list.replaceChildren();
  find("heading").textContent = "";
  again.textContent = "Another one";
  cardOf(mine, 0);
  list.setAttribute("aria-busy", "true");
  lookUp();
  const plain = asked.prompt.trim() === "" && asked.n === 1 && asked.safe && !effort;
  if (!(plain && (await takeReady(mine)))) await request(mine);
}

// Shows the stage, which may have been scrolled away or be behind a phone's keyboard.
function lookUp() {
  if (matchMedia("(pointer: coarse)").matches) find("prompt").blur();
  if (find("stage").getBoundingClientRect().top >= 0) return;
  find("stage").scrollIntoView({ behavior: still.matches ? "auto" : "smooth" });
}

// Takes a joke that the server sent before anybody asked; returns whether there was one.
async function takeReady(mine) {
  const [joke, ...others] = recall(READY, []);
  if (!joke) return false;
  remember(READY, others);
  mine.ready = true;
  await tell(mine, { ...joke, index: 0 });
  finish(mine);
  return true;
}

// The server has the jokes ready, or drafts them. If the connection is lost on the way, what is
// missing is asked for once more.
async function request(mine) {
  await listen(mine);
  if (following === mine && mine.outcome === undefined) {
    showWork(mine, "The connection was lost. Trying again…");
    await new Promise((wake) => setTimeout(wake, RETRY_MS));
    withdraw(mine);
    await listen(mine);
  }
  finish(mine, mine.outcome ?? "The connection was lost. Try again in a moment.");
}

async function listen(mine) {
  const { prompt, safe, effort } = mine.asked;
  const places = mine.missing; // Of the jokes on the page.
  const query = new URLSearchParams({ prompt, n: places.length, safe, ...(effort && { effort }) });
  try {
    const response = await fetch(`/joke?${query}`, {
      headers: { Accept: "text/event-stream" },
      signal: mine.ending.signal,
    });
    if (!response.ok) {
      const problem = await response.json();
      mine.outcome = problem.detail;
      // Trying harder helps against nothing else, and not where the prompt is to blame.
      mine.ready ||= problem.type !== REFUSED || Boolean(problem.errors);
    } else for await (const { event, data } of eventsOf(response)) hear(mine, event, data, places);
  } catch {
    // What has arrived counts.
  }
  await mine.told;
  if (mine.missing.length === 0) mine.outcome = "";
}

// Yields server-sent events.
async function* eventsOf(response) {
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

function hear(mine, event, data, places) {
  const index = places[data.index];
  if (event === "partial") showDraft(mine, { ...data, index });
  if (event === "joke") {
    mine.missing = mine.missing.filter((place) => place !== index);
    mine.told = mine.told.then(() => tell(mine, { ...data, index }));
  }
  if (event !== "state") return;
  mine.task = data.task_id;
  if (following !== mine) return cancel(mine);
  if (data.state === "PENDING") showWork(mine, "Waiting for the model…");
  if (data.state === "STARTED") showWork(mine, doing(mine.asked));
  if (data.state === "SUCCESS") mine.outcome = "";
  if (data.state === "FAILURE") mine.outcome = `${data.error.split(FOR_PROGRAMS)[0]}; ${form.dataset.advice}`;
  if (data.state === "REVOKED") mine.outcome = "the joke was cancelled";
  mine.ready = mine.task === null || (data.state === "FAILURE" && !data.refused);
  if (mine.outcome !== undefined) mine.task = null; // It has ended.
}

function doing({ effort, n }) {
  const one = Number(form.dataset.drafts) === 1;
  if (one && !effort) return n > 1 ? "Writing the jokes…" : "Writing the joke…";
  const drafts = effort ? "Trying harder: many more drafts" : `Writing ${form.dataset.drafts} drafts`;
  return n > 1 ? `${drafts} of each joke. The best ones follow.` : `${drafts}. The best one follows.`;
}

// Says what is happening, for how long, and lets it be stopped.
function showWork(mine, sentence) {
  say(sentence);
  stop.hidden = false;
  const began = Date.now();
  mine.clock ??= setInterval(() => {
    find("seconds").textContent = `${Math.round((Date.now() - began) / 1000)} s`;
  }, 1000);
}

function cardOf(mine, index) {
  if (!mine.cards[index]) {
    mine.cards[index] = makeCard();
    mine.cards[index].classList.add("waiting");
    mine.cards[index].querySelector("summary").inert = true;
    list.append(mine.cards[index]);
  }
  return mine.cards[index];
}

function showDraft(mine, { index, question, answer }) {
  if (following !== mine) return;
  const card = cardOf(mine, index);
  card.querySelector(".question").textContent = question;
  card.querySelector(".answer").textContent = answer;
  card.querySelector(".punchline").open = atOnce.checked;
  card.classList.toggle("live", atOnce.checked);
}

async function tell(mine, joke) {
  if (following !== mine) return;
  const card = cardOf(mine, joke.index);
  fill(card, joke);
  card.querySelector("summary").inert = false;
  if (mine.asked.n === 1) {
    mine.arrived = true;
    rest(mine);
  }
  list.setAttribute("aria-busy", "false");
  say("");
  await beat(card);
  if (following !== mine) return;
  reveal(card);
}

// The pause before a punchline; whoever opens it ends the pause. It is there already, unseen, so
// that nothing moves when it appears.
async function beat(card) {
  if (atOnce.checked || still.matches) return;
  card.classList.add("waiting");
  card.querySelector(".punchline").open = true;
  await new Promise((wake) => {
    setTimeout(wake, BEAT_MS);
    const early = (event) => {
      event.preventDefault(); // The browser would close what is about to be opened.
      wake();
    };
    card.querySelector("summary").addEventListener("click", early, { once: true });
  });
}

function finish(mine, sentence) {
  if (following !== mine) return;
  following = null;
  rest(mine);
  list.querySelectorAll(".waiting").forEach((card) => card.remove());
  if (list.childElementCount) {
    turnPage(mine);
  } else {
    find("heading").textContent = mine.before.heading;
    list.replaceChildren(...mine.before.cards);
  }
  const lost = mine.outcome === undefined && sentence !== undefined;
  again.hidden = list.childElementCount === 0 && !lost;
  again.textContent = lost ? "Try again" : "Another one";
  harder.hidden = mine.ready || lost;
  say(sentence ? sentenceOf(sentence) : "", Boolean(sentence));
  showKept();
}

// Takes away what belongs to a job in progress.
function rest(mine) {
  clearInterval(mine.clock);
  find("seconds").textContent = "";
  list.setAttribute("aria-busy", "false");
  if (document.activeElement === stop) mine.from.focus();
  stop.hidden = true;
}

function cancel(mine) {
  mine.ending.abort();
  withdraw(mine);
}

// Not every server hears that a client has gone: NGINX Unit does not say so.
function withdraw(mine) {
  const { task } = mine;
  if (task) fetch(`/generate/${task}`, { method: "DELETE", keepalive: true }).catch(() => {});
  mine.task = null;
}

function leave() {
  const mine = following;
  if (!mine) return;
  cancel(mine);
  rest(mine);
  following = null;
}

function giveUp() {
  const mine = following;
  if (!mine) return;
  cancel(mine);
  finish(mine);
  say("Stopped.");
}

// --- pages: each joke has its own address, so that back, forward and reload lead to it

function pageOf(prompt, ready) {
  const heading = find("heading").textContent;
  return { prompt, heading, jokes: [...list.children].map(read), ready };
}

function addressOf({ jokes }) {
  return jokes.length === 1 && jokes[0].link ? jokes[0].link : "/";
}

function turnPage(mine) {
  const page = pageOf(mine.asked.prompt, mine.ready);
  // Nobody goes back to a page without a joke.
  const turn = mine.before.cards.length ? "pushState" : "replaceState";
  history[turn](page, "", addressOf(page));
}

function showPage(page) {
  find("prompt").value = page.prompt;
  find("heading").textContent = page.heading;
  const told = recall(VISIT, []); // With the votes since.
  const latest = (joke) => told.find((other) => same(other, joke)) ?? joke;
  list.replaceChildren(...page.jokes.map(latest).map(makeCard));
  again.hidden = list.childElementCount === 0;
  again.textContent = "Another one";
  harder.hidden = page.ready || again.hidden;
  say("");
  showKept();
}

// --- start

function start() {
  const cards = [...list.querySelectorAll(".joke")];
  cards.forEach(equip);
  const { permanent } = document.body.dataset;
  const fresh = cards.length === 1 && permanent === undefined && location.pathname === "/";
  const known = history.state?.jokes?.length && !history.state.served;
  if (known && !find("status").classList.contains("wrong")) {
    // A reload: what the server has sent instead is for later.
    if (fresh) remember(READY, [...recall(READY, []), read(cards[0])]);
    return showPage(history.state);
  }
  const kept = [...recall(VISIT, []), ...recall(FAVOURITES, [])]; // The server knows no visitor.
  for (const card of cards) showVote(card, kept.find((joke) => same(joke, read(card)))?.vote);
  if (cards.length) {
    const page = pageOf(find("prompt").value, harder.hidden);
    const asked = location.pathname === "/joke"; // Loading it again would ask again.
    // The server knows best what is at any other address but this page's own.
    const served = !asked && location.pathname !== "/";
    history.replaceState({ ...page, served }, "", asked ? addressOf(page) : location.href);
  }
  if (cards.length === 1 && (permanent === undefined || atOnce.checked)) {
    beat(cards[0]).then(() => reveal(cards[0]));
  }
  cards.forEach(revealed);
  showKept();
  if (document.body.dataset.eager !== undefined) form.requestSubmit(find("tell"));
}

document.querySelectorAll(".js-only").forEach((element) => (element.hidden = false));
atOnce.checked = recall(AT_ONCE, false);
atOnce.addEventListener("change", () => remember(AT_ONCE, atOnce.checked));
for (const [id, key] of [
  ["favourites", FAVOURITES],
  ["visit", VISIT],
]) {
  find(id)
    .querySelector("p button")
    .addEventListener("click", () => {
      remember(key, []);
      showKept();
      list.querySelectorAll(".joke").forEach((card) => showParts(card, read(card)));
      find("prompt").focus();
    });
}
document.querySelector(".starts").addEventListener("click", (event) => {
  const { start } = event.target.dataset;
  if (!start || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  find("prompt").value = start;
  form.requestSubmit(find("tell"));
});
form.addEventListener("submit", ask);
stop.addEventListener("click", giveUp);
find("count").addEventListener("invalid", () => (find("options").open = true));
addEventListener("pagehide", giveUp);
addEventListener("popstate", (event) => {
  leave();
  if (event.state) showPage(event.state);
});
start();
