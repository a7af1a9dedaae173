// The page: sends the prompt, shows the text as it comes. Text is only ever set as text, never as HTML.
"use strict";

const find = (id) => document.getElementById(id);
let running = null;
let continues = true; // whether the text continues the prompt, or answers it

function say(message, wrong = false) {
  find("status").textContent = message;
  find("status").classList.toggle("wrong", wrong);
}

function wants() {
  const number = (id) => (find(id).value === "" ? undefined : Number(find(id).value));
  return {
    prompt: find("prompt").value,
    max_tokens: number("max_tokens"),
    temperature: number("temperature"),
    top_p: number("top_p"),
    top_k: number("top_k"),
    seed: number("seed"),
    stop: find("stop").value || undefined,
    stream: true,
    stream_options: { include_usage: true },
  };
}

async function* pieces(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const events = held.split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function busy(on) {
  find("go").disabled = on;
  find("halt").disabled = !on;
  find("text").setAttribute("aria-busy", String(on));
}

async function write() {
  if (running || !find("form").reportValidity()) return;
  running = new AbortController();
  busy(true);
  say("writing …");
  const given = document.createElement("span");
  given.className = "given";
  given.textContent = continues ? find("prompt").value : "";
  const text = document.createElement("span");
  text.id = "written";
  find("text").replaceChildren(given, text);
  const began = performance.now();
  try {
    const response = await fetch("/v1/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(wants()),
      signal: running.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    let usage = null;
    let reason = "";
    for await (const piece of pieces(response)) {
      if (piece.error) throw new Error(piece.error.message);
      usage = piece.usage || usage;
      for (const choice of piece.choices) {
        text.append(choice.text);
        reason = choice.finish_reason || reason;
      }
    }
    const seconds = (performance.now() - began) / 1000;
    const count = usage ? usage.completion_tokens : 0;
    const why = reason === "length" ? "as many as asked for" : "the text has ended";
    say(`${count} tokens in ${seconds.toFixed(1)} s (${why})`);
  } catch (error) {
    if (error.name === "AbortError") say("stopped");
    else say(error.message === "Failed to fetch" ? "the server does not answer" : error.message, true);
  } finally {
    running = null;
    busy(false);
  }
}

function stop() {
  if (running) running.abort();
}

function shade(theme) {
  document.documentElement.dataset.theme = theme;
  find("theme").textContent = theme === "dark" ? "light" : "dark";
}

async function begin() {
  shade(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  find("theme").addEventListener("click", () =>
    shade(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  find("form").addEventListener("submit", (event) => { event.preventDefault(); write(); });
  find("halt").addEventListener("click", stop);
  find("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(find("text").textContent);
      say("copied");
    } catch {
      say("the browser does not let pages copy here", true);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); write(); }
    if (event.key === "Escape") stop();
  });
  try {
    const model = (await (await fetch("/v1/models")).json()).data[0];
    find("model").textContent = `${model.id}, ${model.context} tokens of context`;
    continues = model.continues;
    find("max_tokens").max = model.max_tokens;
    if (model.max_tokens < 128) find("max_tokens").value = Math.max(1, Math.floor(model.max_tokens / 2));
  } catch {
    find("model").textContent = "the server does not answer";
  }
}

begin();
