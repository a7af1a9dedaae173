// The page: what is chosen, and the views that show it.
const VIEWS_BY_TAB = { links: ["Links", Links], matrix: ["Matrix", Matrix], why: ["Why", Why], paths: ["Paths", Paths], steps: ["Steps", Steps] };
const HELP = [["1 – 5", "views"], ["arrows", "the head beside (with Shift: add it)"], ["[ ]", "one token back, one on"], ["+ − 0", "zoom the matrix, fit it"],
  ["p", "the next part: encoder, decoder, cross"], ["m", "the other model, or both"], ["d", "dark or light"], ["s", "save as SVG"], ["Esc", "let go of what is pinned"], ["?", "this list"]];
const WEIGHTINGS = { attention: "attention", values: "× length of value", gradient: "× gradient" };

function App() {
  const [S, setAll] = useState(() => ({
    theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light", side: MODELS.length > 1 ? "both" : 0, part: startingPart(), tab: "links",
    heads: [startingHead()], metric: "induction", least: 0, sort: "layers", contrast: Math.max(...MODELS[0].chapters.map(each => each.columns)) > 256 ? 0.55 : 0.8, threshold: null, weighting: "attention",
    hover: null, pin: null, pair: null, step: null, what: "head", depth: 99, help: false, views: {},
  }));
  const set = useCallback(patch => setAll(old => ({ ...old, ...patch })), []);
  const models = S.side === "both" ? MODELS : [MODELS[S.side]], model = models[0];
  const part = Math.min(S.part, model.chapters.length - 1), chapter = model.chapters[part];
  const metric = chapter.metrics.names.includes(S.metric) && chapter.metrics.values.some(row => row[chapter.metrics.names.indexOf(S.metric)] != null) ? S.metric : chapter.metrics.names.find((_, i) => chapter.metrics.values.some(row => row[i] != null)) || chapter.metrics.names[0];
  const T = { ...S, metric };
  useLayoutEffect(() => { document.documentElement.dataset.theme = S.theme; }, [S.theme]);
  const choose = (i, more) => set(more ? { heads: S.heads.includes(i) ? (S.heads.length > 1 ? S.heads.filter(each => each !== i) : S.heads) : [...S.heads, i].slice(-8) } : { heads: [i] });
  const nextPart = () => set({ part: (part + 1) % model.chapters.length, heads: [0], pin: null, pair: null, step: null, views: {} });
  const now = useRef(); now.current = { S, chapter, choose, nextPart };
  useEffect(() => {
    const press = event => {
      const { S, chapter, choose, nextPart } = now.current;
      if (/^(SELECT|TEXTAREA)$/.test(event.target.tagName) || (event.target.tagName === "INPUT") || event.ctrlKey || event.metaKey || event.altKey) return;
      const tab = Object.keys(VIEWS_BY_TAB)[+event.key - 1], i = S.heads[S.heads.length - 1], head = chapter.heads[i];
      const step = by => { const rows = chapter.rows, at = S.step ?? rows - 1; set({ step: Math.max(0, Math.min(rows - 1, at + by)) }); };
      const beside = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (tab) set({ tab });
      else if (beside && head) {
        const place = (head.place + beside[0] + chapter.layers.length) % chapter.layers.length, count = chapter.layers[place].heads;
        const wanted = chapter.heads.find(each => each.place === place && each.head === (Math.min(head.head, count - 1) + beside[1] + count) % count);
        choose(wanted.i, event.shiftKey); event.preventDefault();
      } else if (event.key === "[") step(-1);
      else if (event.key === "]") step(1);
      else if (event.key === "+" || event.key === "=") VIEWS.forEach(view => view.zoom(1.5));
      else if (event.key === "-") VIEWS.forEach(view => view.zoom(1 / 1.5));
      else if (event.key === "0") VIEWS.forEach(view => view.fit());
      else if (event.key === "p") nextPart();
      else if (event.key === "m" && MODELS.length > 1) set({ side: S.side === "both" ? 0 : S.side === 0 ? 1 : "both" });
      else if (event.key === "d") set({ theme: S.theme === "dark" ? "light" : "dark" });
      else if (event.key === "s") exported("svg", S.theme, "attention");
      else if (event.key === "Escape") set({ pin: null, help: false });
      else if (event.key === "?") set({ help: !S.help });
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  const View = VIEWS_BY_TAB[S.tab][1], name = ["attention", chapter.name, ...S.heads.map(i => (chapter.heads[i] || {}).name)].join("-");
  const gradients = chapter.gradientScale !== undefined, values = chapter.values !== undefined;
  return html`<header><h1>${INDEX.title}</h1>
      ${MODELS.length > 1 ? html`<div class="switch" role="group" aria-label="model">${[...MODELS.map((each, i) => [i, each.name]), ["both", "side by side"]].map(([side, label]) => html`<button aria-pressed=${S.side === side} onClick=${() => set({ side })}>${label}</button>`)}</div>` : html`<span class="faint name">${model.name}</span>`}
      ${model.chapters.length > 1 && html`<div class="switch parts" role="group" aria-label="part">${model.chapters.map((each, i) => html`<button aria-pressed=${i === part} onClick=${() => set({ part: i, heads: [0], pin: null, pair: null, step: null, views: {} })}>${each.name}</button>`)}</div>`}
      <span class="faint">${chapter.layers.length} layers, ${chapter.heads.length} heads, ${chapter.rows}${chapter.own ? "" : " × " + chapter.columns} tokens</span><span class="spacer"></span>
      <button onClick=${() => exported("svg", S.theme, name)} id="svg">SVG</button><button id="png" onClick=${() => exported("png", S.theme, name)}>PNG</button>
      <button id="theme" onClick=${() => set({ theme: S.theme === "dark" ? "light" : "dark" })} title="dark or light (d)">${S.theme === "dark" ? "light" : "dark"}</button>
      <button onClick=${() => set({ help: !S.help })} title="keys (?)" aria-label="keys">?</button></header>
    ${INDEX.leftOut && INDEX.leftOut.length > 0 && html`<details class="leftout"><summary>Not everything fitted into the page</summary>${INDEX.leftOut.map(line => html`<div>left out: ${line}</div>`)}<div>Ask for single heads by --heads LAYER.HEAD, or for a larger page by --megabytes.</div></details>`}
    <main><aside>${models.map(each => { const c = each.chapters[Math.min(part, each.chapters.length - 1)]; return html`${models.length > 1 && html`<h2>${each.name}</h2>`}<${Overview} key=${c.id} chapter=${c} S=${T} set=${set} choose=${choose} />`; })}</aside>
      <section class="work"><nav role="tablist">${Object.entries(VIEWS_BY_TAB).map(([id, [label]], n) => html`<button role="tab" id=${"tab-" + id} aria-selected=${S.tab === id} title=${n + 1} onClick=${() => set({ tab: id })}>${label}</button>`)}
        <span class="spacer"></span>
        ${(values || gradients) && S.tab !== "why" && S.tab !== "paths" && html`<label>weights <select id="weighting" value=${S.weighting} onChange=${e => set({ weighting: e.target.value })}>${Object.entries(WEIGHTINGS).filter(([id]) => id === "attention" || (id === "values" ? values : gradients)).map(([id, label]) => html`<option value=${id}>${label}</option>`)}</select></label>`}
        ${S.tab === "links" && html`<label>from <input type="range" min="0" max="0.8" step="0.01" value=${Math.sqrt(leastOf(S, chapter))} onInput=${e => set({ threshold: e.target.value ** 2 })} aria-label="least weight of a link" /> <output>${number(leastOf(S, chapter), leastOf(S, chapter) < 0.01 ? 4 : 2)}</output></label>`}
        ${S.tab === "matrix" && html`<label>contrast <input type="range" min="0.3" max="2" step="0.05" value=${2.3 - S.contrast} onInput=${e => set({ contrast: +(2.3 - e.target.value).toFixed(2) })} aria-label="contrast" /></label>`}</nav>
        <div class=${"panels" + (models.length > 1 ? " two" : "")}>${models.map(each => { const c = each.chapters[Math.min(part, each.chapters.length - 1)];
          const fitting = { ...T, heads: S.heads.filter(i => i < c.heads.length) };
          if (!fitting.heads.length) fitting.heads = [0];
          return html`<div class="panel" key=${c.id + S.tab}>${models.length > 1 && html`<h2>${each.name}</h2>`}<${View} model=${each} chapter=${c} S=${fitting} set=${set} id=${c.id + S.tab} link=${part} /></div>`; })}</div>
      </section></main>
    ${S.help && html`<div class="help" role="dialog" aria-label="Keys" onClick=${() => set({ help: false })}><div><h2>Keys</h2><dl>${HELP.map(([key, what]) => html`<dt>${key}</dt><dd>${what}</dd>`)}</dl></div></div>`}`;
}
function startingPart() { // what the network writes is of most interest
  const names = MODELS[0].chapters.map(each => each.name);
  return Math.max(0, names.indexOf("cross"));
}
function startingHead() { // the head that looks at the fewest tokens
  const chapter = MODELS[0].chapters[startingPart()], column = chapter.metrics.names.indexOf("evenness");
  let best = 0;
  chapter.heads.forEach(head => { if ((head.metrics[column] ?? 9) < (chapter.heads[best].metrics[column] ?? 9)) best = head.i; });
  return best;
}
document.getElementById("app").textContent = "";
render(html`<${App} />`, document.getElementById("app"));
requestAnimationFrame(() => requestAnimationFrame(() => { document.documentElement.dataset.ready = String(Math.round(performance.now())); }));
