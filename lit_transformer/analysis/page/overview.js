// All heads at a glance: a small picture each, ordered and filtered by a metric.
const METRICS = {
  entropy: "how spread the weights are, in nats", evenness: "1: looks at all visible tokens alike",
  distance: "how far away it looks, in tokens", previous: "weight on the token before", next: "weight on the token after",
  self: "weight on the token itself", first: "weight on the first token (attention sink)",
  duplicate: "weight on earlier places of the same token", induction: "weight on what followed the same token earlier",
  separators: "weight on separators and punctuation", importance: "how much the answer changes with the head's strength (gradient)",
};
function ordered(chapter, S) {
  const names = chapter.metrics.names, column = names.indexOf(S.metric);
  let heads = chapter.heads.slice();
  if (S.sort === "similarity") heads = chapter.order.map(i => chapter.heads[i]);
  if (S.sort === "metric" && column >= 0) heads.sort((a, b) => (b.metrics[column] ?? -1) - (a.metrics[column] ?? -1));
  return heads;
}
function range(chapter, S) {
  const column = chapter.metrics.names.indexOf(S.metric);
  const values = chapter.heads.map(head => head.metrics[column]).filter(value => value != null);
  return values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
}
const passes = (chapter, S, head) => {
  if (!S.least) return true;
  const [low, high] = range(chapter, S), value = head.metrics[chapter.metrics.names.indexOf(S.metric)];
  return value != null && value >= low + (high - low) * S.least;
};

function Thumb({ chapter, head, cells, S, choose, size, value }) {
  const ref = useRef();
  useEffect(() => { if (cells) paint(ref.current, cells, chapter.thumbs.rows, chapter.thumbs.columns, table(S.theme, S.contrast)); }, [cells, S.theme, S.contrast]);
  const place = S.heads.indexOf(head.i), dim = !passes(chapter, S, head);
  return html`<button class=${"thumb" + (place >= 0 ? " chosen" : "") + (dim ? " dim" : "")} data-head=${head.name}
    style=${{ width: size + "px", "--colour": place >= 0 ? headColour(S.theme, place) : "transparent" }}
    aria-pressed=${place >= 0} title=${`layer ${head.layer}, head ${head.head}` + chapter.metrics.names.map((name, i) => `\n${name} ${number(head.metrics[i])}`).join("")}
    onClick=${event => choose(head.i, event.shiftKey || event.ctrlKey || event.metaKey)}>
    <canvas ref=${ref} style=${{ width: size - 6 + "px", height: size - 6 + "px" }}></canvas>
    ${value && html`<span class="value">${value}</span>`}</button>`;
}

function Overview({ chapter, S, set, choose }) {
  const cells = useLoaded(() => chapter.loadThumbs(), [chapter.id]);
  const box = useRef(), { width } = useSize(box);
  const names = chapter.metrics.names, column = names.indexOf(S.metric), across = Math.max(...chapter.layers.map(each => each.heads));
  const grid = S.sort === "layers";
  const size = Math.max(26, Math.min(76, Math.floor((Math.max(width, 200) - 46) / (grid ? across : Math.max(4, Math.min(across, 8))))));
  const [low, high] = range(chapter, S), limit = low + (high - low) * S.least;
  const small = head => html`<${Thumb} key=${head.i} chapter=${chapter} head=${head} cells=${cells && cells[head.i]} S=${S} choose=${choose}
    size=${size} value=${grid && size < 40 ? null : grid ? number(head.metrics[column], 2) : head.name + (S.sort === "metric" ? " " + number(head.metrics[column], 2) : "")} />`;
  return html`<section class="overview" aria-label="Heads">
    <div class="controls">
      <label>Order <select value=${S.sort} onChange=${e => set({ sort: e.target.value })}>
        <option value="layers">by layer</option><option value="metric">by metric</option><option value="similarity">alike together</option></select></label>
      <label>Metric <select id="metric" value=${S.metric} title=${METRICS[S.metric]} onChange=${e => set({ metric: e.target.value })}>
        ${names.map(name => html`<option value=${name}>${name}</option>`)}</select></label>
      <label class="wide">At least <input type="range" min="0" max="1" step="0.01" value=${S.least} onInput=${e => set({ least: +e.target.value })} aria-label="least value of the metric" />
        <output>${S.least ? number(limit, 2) : "all"}</output></label>
    </div>
    <p class="hint">${METRICS[S.metric] || S.metric}: ${number(low, 2)} to ${number(high, 2)}. Click a head; Shift-click adds another.</p>
    <div class="grid" ref=${box}>${grid
      ? chapter.layers.map((layer, place) => html`<div class="row"><span class="rowname">${layer.layer}</span>${chapter.heads.filter(head => head.place === place).map(small)}</div>`)
      : html`<div class="flow">${ordered(chapter, S).map(small)}</div>`}</div>
  </section>`;
}
