// The page's behavior. Without JavaScript the form loads a new page with the jokes; with it they
// stream in, and the punchline follows after a pause. Model output is inserted as text only.

const BEAT_MS = 1500;
const MOST_RECENT = 20;
const RECENT = "joker.recent";
const AT_ONCE = "joker.at-once";

const find = (id) => document.getElementById(id);
const form = find("ask");
const list = find("jokes");
const atOnce = find("at-once");
const still = matchMedia("(prefers-reduced-motion: reduce)");

let following = null; // The current request: its job, event stream and cards.

function say(text, wrong = false) {
  find("status").textContent = text;
  find("status").classList.toggle("wrong", wrong);
}

// --- local storage; if the browser forbids it, nothing is stored

function recall(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function remember(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Private windows and full disks: the page works without storage.
  }
}

// Those that an older version of this page remembered had other links, which lead nowhere now.
function recallRecent() {
  return recall(RECENT, []).filter((joke) => "id" in joke);
}

function showRecent() {
  const jokes = recallRecent();
  find("recent-jokes").replaceChildren(...jokes.map((joke) => fill(makeCard(), joke)));
  find("recent").hidden = jokes.length === 0;
}

// --- cards

function makeCard() {
  const card = find("card").content.firstElementChild.cloneNode(true);
  equip(card);
  return card;
}

function equip(card) {
  const copy = card.querySelector(".copy");
  copy.hidden = false;
  copy.addEventListener("click", () => offer(textOf(card), "Copied."));
  card.querySelector(".share").addEventListener("click", () => shareCard(card));
  card.querySelector(".votes").addEventListener("submit", (event) => vote(event, card));
  showStored(card);
}

// A joke that could not be stored has no link and takes no votes.
function showStored(card) {
  card.querySelectorAll(".stored").forEach((part) => (part.hidden = !card.dataset.link));
}

function fill(card, joke) {
  card.dataset.link = joke.link ?? "";
  card.querySelector(".link").href = card.dataset.link;
  card.querySelector(".votes").action = `${card.dataset.link}/votes`;
  showStored(card);
  card.querySelector(".question").textContent = joke.question;
  card.querySelector(".answer").textContent = joke.answer;
  if (joke.original !== null && joke.original !== undefined) {
    const badge = document.createElement("span");
    badge.className = `badge ${joke.original ? "original" : "retold"}`;
    badge.textContent = joke.original ? "original" : "retold";
    card.querySelector(".badge")?.remove();
    card.querySelector(".extras").prepend(badge);
  }
  return card;
}

function textOf(card) {
  return [".question", ".answer"].map((part) => card.querySelector(part).textContent).join("\n");
}

async function offer(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    say(done);
  } catch {
    // Browsers hide the clipboard without HTTPS; the text can still be copied from here.
    prompt("Copy this:", text);
  }
}

async function shareCard(card) {
  const url = new URL(card.dataset.link, location.href).href;
  if (!navigator.share) return offer(url, "Link copied.");
  try {
    await navigator.share({ text: card.querySelector(".question").textContent, url });
  } catch (error) {
    if (error.name !== "AbortError") await offer(url, "Link copied.");
  }
}

// --- votes

const THANKS = {
  up: "Thanks: you find it funny.",
  down: "Thanks: you do not find it funny.",
  report: "Reported. Nobody is shown this joke any more; another vote takes the report back.",
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
    if (!response.ok) return say(sentenceOf(answer.detail), true);
    for (const button of event.target.elements) {
      button.setAttribute("aria-pressed", button.value === chosen);
      const counted = button.value !== "report" && answer[button.value];
      button.querySelector(".count").textContent = counted || "";
    }
    card.classList.toggle("reported", chosen === "report");
    say(THANKS[chosen]);
  } catch {
    say("The vote did not arrive. Try again in a moment.", true);
  }
}

function sentenceOf(text) {
  return text[0].toUpperCase() + text.slice(1);
}

// --- telling

async function ask(event) {
  event.preventDefault();
  leave();
  list.replaceChildren();
  find("again").hidden = true;
  list.setAttribute("aria-busy", "true");
  say("Thinking…");
  const asked = {
    prompt: find("prompt").value,
    n: find("count").valueAsNumber,
    safe: !find("unsafe").checked,
  };
  const mine = (following = { task: null, source: null, cards: [], told: Promise.resolve() });
  try {
    const response = await fetch("/generate", {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify(asked),
    });
    const answer = await response.json();
    if (!response.ok) return finish(mine, answer.detail);
    mine.task = answer.task_id;
    if (following === mine) follow(mine);
    else cancel(mine);
  } catch {
    finish(mine, "The server cannot be reached. Try again in a moment.");
  }
}

function follow(mine) {
  mine.source = new EventSource(`/generate/${mine.task}/events`);
  const on = (name, act) =>
    mine.source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  on("partial", (partial) => draft(mine, partial));
  on("joke", (joke) => {
    mine.told = mine.told.then(() => tell(mine, joke));
  });
  on("state", (task) => {
    if (!["SUCCESS", "FAILURE", "REVOKED"].includes(task.state)) return;
    mine.source.close();
    mine.task = null;
    const sentence = task.state === "REVOKED" ? "The joke was cancelled." : task.error;
    mine.told.then(() => finish(mine, sentence));
  });
  mine.source.addEventListener("error", () => {
    // The browser reconnects by itself; a closed source is final.
    if (mine.source.readyState === EventSource.CLOSED) {
      finish(mine, "The connection was lost. Try again in a moment.");
    }
  });
}

function cardOf(mine, index) {
  if (!mine.cards[index]) {
    mine.cards[index] = makeCard();
    mine.cards[index].classList.add("waiting");
    list.append(mine.cards[index]);
  }
  return mine.cards[index];
}

function draft(mine, { index, question, answer }) {
  if (following !== mine) return;
  const card = cardOf(mine, index);
  card.querySelector(".question").textContent = question;
  if (atOnce.checked) card.querySelector(".answer").textContent = answer;
}

async function tell(mine, joke) {
  if (following !== mine) return;
  const card = cardOf(mine, joke.index);
  fill(card, { ...joke, answer: "" });
  list.setAttribute("aria-busy", "false");
  say("");
  if (!atOnce.checked && !still.matches) await new Promise((wake) => setTimeout(wake, BEAT_MS));
  if (following !== mine) return;
  card.querySelector(".answer").textContent = joke.answer;
  card.classList.replace("waiting", "told");
  const { id, question, answer, original, link } = joke;
  const others = recallRecent().filter((other) => !id || other.id !== id);
  remember(RECENT, [{ id, question, answer, original, link }, ...others].slice(0, MOST_RECENT));
  showRecent();
}

function finish(mine, sentence) {
  if (following !== mine) return;
  mine.source?.close();
  list.querySelectorAll(".waiting").forEach((card) => card.remove());
  list.setAttribute("aria-busy", "false");
  find("again").hidden = list.childElementCount === 0;
  say(sentence ? sentenceOf(sentence) : "", Boolean(sentence));
}

function cancel({ task }) {
  if (task) fetch(`/generate/${task}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

function leave() {
  if (!following) return;
  following.source?.close();
  cancel(following);
  following = null;
}

// --- start

document.querySelectorAll(".js-only").forEach((element) => (element.hidden = false));
list.querySelectorAll(".joke").forEach(equip);
atOnce.checked = recall(AT_ONCE, false);
atOnce.addEventListener("change", () => remember(AT_ONCE, atOnce.checked));
find("forget").addEventListener("click", () => {
  remember(RECENT, []);
  showRecent();
  find("prompt").focus();
});
form.addEventListener("submit", ask);
addEventListener("pagehide", leave);
showRecent();
