// From layer to layer: how a token's state is made of the tokens below it (rollout), and how much can flow (flow).
const FLOW_LIMIT = 128;
// Rows that sum to 1: the mean of the heads, mixed with the stream that goes past them.
function mixed(links, size, share) {
  const out = new Float32Array(size * size);
  for (let i = 0; i < size; i++) {
    let sum = 0;
    links.each(i, (j, byte) => { const w = weightOf(byte); out[i * size + j] = w; sum += w; });
    for (let j = 0; j < size; j++) out[i * size + j] = sum ? (1 - share) * out[i * size + j] / sum : 0;
    out[i * size + i] += sum ? share : 1;
  }
  return out;
}
// How much of each token, layer by layer, is in one token of the last layer.
function traced(matrices, size, token) {
  const states = [new Float32Array(size)];
  states[0][token] = 1;
  for (let l = matrices.length - 1; l >= 0; l--) {
    const above = states[0], below = new Float32Array(size);
    for (let i = 0; i < size; i++) if (above[i] > 1e-7) for (let j = 0; j < size; j++) below[j] += above[i] * matrices[l][i * size + j];
    states.unshift(below);
  }
  return states;
}
// The most that can flow from each input token to one token of the last layer (Dinic), weights being capacities.
function maximumFlows(matrices, size, token) {
  const layers = matrices.length, sink = layers * size + token, heads = [], to = [], room = [], next = [];
  for (let n = 0; n < (layers + 1) * size; n++) heads.push(-1);
  const add = (a, b, c) => { to.push(b); room.push(c); next.push(heads[a]); heads[a] = to.length - 1; to.push(a); room.push(0); next.push(heads[b]); heads[b] = to.length - 1; };
  matrices.forEach((m, l) => { for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) if (m[i * size + j] > 1e-5) add(l * size + j, (l + 1) * size + i, m[i * size + j]); });
  const fresh = Float64Array.from(room), level = new Int32Array(heads.length), at = new Int32Array(heads.length);
  return start => {
    for (let e = 0; e < fresh.length; e++) room[e] = fresh[e];
    let total = 0;
    for (;;) {
      level.fill(-1); level[start] = 0;
      const queue = [start];
      for (let n = 0; n < queue.length && level[sink] < 0; n++) for (let e = heads[queue[n]]; e >= 0; e = next[e]) if (room[e] > 1e-9 && level[to[e]] < 0) { level[to[e]] = level[queue[n]] + 1; queue.push(to[e]); }
      if (level[sink] < 0) return total;
      at.set(heads);
      const push = (n, most) => {
        if (n === sink) return most;
        let sent = 0;
        for (; at[n] >= 0; at[n] = next[at[n]]) {
          const e = at[n];
          if (room[e] > 1e-9 && level[to[e]] === level[n] + 1) { const part = push(to[e], Math.min(most - sent, room[e])); room[e] -= part; room[e ^ 1] += part; sent += part; if (most - sent < 1e-9) return sent; }
        }
        return sent;
      };
      total += push(start, Infinity);
    }
  };
}

function Paths({ model, chapter, S, set, id }) {
  const scroller = useRef(), canvas = useRef(), { width, height } = useSize(scroller), [top, setTop] = useState(0);
  const [flows, setFlows] = useState(null), [share, setShare] = useState(0.5), [kind, setKind] = useState("rollout");
  const cells = useLoaded(() => (chapter.own ? Promise.all(chapter.layers.map((_, l) => chapter.linksOf("mean." + l))) : Promise.resolve(null)), [chapter.id]);
  const size = chapter.rows, row = size <= 48 ? 22 : size <= 160 ? 14 : 8, token = Math.min(S.pin && S.pin.side === "q" ? S.pin.i : S.pair ? S.pair.q : size - 1, size - 1);
  const matrices = useMemo(() => (cells && cells.every(Boolean) && cells.length ? cells.map(each => mixed(each, size, share)) : null), [cells, share]);
  const states = useMemo(() => (matrices ? traced(matrices, size, token) : null), [matrices, token]);
  useEffect(() => { // the token that is traced is to be seen
    const at = scroller.current;
    if (at && matrices && (token * row < at.scrollTop || token * row > at.scrollTop + at.clientHeight - row)) at.scrollTop = token * row - at.clientHeight / 2;
  }, [token, !matrices]);
  useEffect(() => {
    setFlows(null);
    if (kind !== "flow" || !matrices || size > FLOW_LIMIT) return;
    let alive = true;
    const out = new Float32Array(size), flow = maximumFlows(matrices, size, token);
    const some = j => {
      if (!alive) return;
      const until = performance.now() + 30;
      for (; j < size && performance.now() < until; j++) out[j] = flow(j);
      if (j < size) setTimeout(some, 0, j); else setFlows(out);
    };
    some(0);
    return () => { alive = false; };
  }, [kind, matrices, token]);
  const left = 150, right = 190, depth = chapter.layers.length, x = l => left + (width - left - right) * l / depth, y = i => i * row + row / 2 - top;
  const result = kind === "flow" ? flows : states && states[0], most = result ? Math.max(...result, 1e-9) : 1;
  const edges = useMemo(() => {
    if (!states) return [];
    const found = [];
    matrices.forEach((m, l) => { for (let i = 0; i < size; i++) { const above = states[l + 1][i]; if (above < 1e-4) continue; for (let j = 0; j < size; j++) { const part = above * m[i * size + j]; if (part > 0.002) found.push([l, j, i, part]); } } });
    found.sort((a, b) => b[3] - a[3]);
    return found.slice(0, 2500).reverse();
  }, [states]);
  const colour = headColour(S.theme, 0), strongest = edges.length ? edges[edges.length - 1][3] : 1, alpha = part => 0.06 + 0.8 * Math.pow(part / strongest, 0.6);
  useEffect(() => {
    if (!width) return;
    const c = fit(canvas.current, width, height);
    c.clearRect(0, 0, width, height);
    for (const [l, j, i, part] of edges) {
      if (Math.max(y(j), y(i)) < -20 || Math.min(y(j), y(i)) > height + 20) continue;
      c.globalAlpha = alpha(part); c.strokeStyle = colour; c.lineWidth = 0.6 + 5 * Math.sqrt(part) * row / 22;
      c.beginPath(); c.moveTo(x(l), y(j)); curve(c, [x(l), y(j), x(l + 1), y(i)], 0.5); c.stroke();
    }
    c.globalAlpha = 1;
    if (states) states.forEach((state, l) => { for (let i = 0; i < size; i++) if (state[i] > 0.002 && y(i) > -20 && y(i) < height + 20) { c.fillStyle = colour; c.beginPath(); c.arc(x(l), y(i), 1.2 + row / 5 * Math.sqrt(state[i]), 0, 7); c.fill(); } });
  }, [edges, width, height, top, S.theme]);
  useScene(id, () => {
    if (!states) return null;
    const items = [], w = left + right + 90 * depth, px = l => left + 90 * l, py = i => 24 + i * row + row / 2;
    for (const [l, j, i, part] of edges) items.push({ line: [px(l), py(j), px(l + 1), py(i)], bend: 0.5, colour, alpha: alpha(part), width: 0.6 + 5 * Math.sqrt(part) * row / 22 });
    const each = Math.ceil(11 / row);
    for (let i = 0; i < size; i += each) { items.push({ text: shown(chapter.columnWords[i]), x: left - 8, y: py(i) + 4, anchor: "end", size: 11, colour: INK[S.theme] }); if (result) items.push({ text: number(result[i]), x: 4, y: py(i) + 4, size: 10, colour: FAINT[S.theme] }); }
    items.push({ text: shown(chapter.rowWords[token]), x: px(depth) + 8, y: py(token) + 4, size: 12, colour: INK[S.theme] });
    for (let l = 0; l <= depth; l++) items.push({ text: l ? "layer " + chapter.layers[l - 1].layer : "input", x: px(l), y: 14, anchor: "middle", size: 10, colour: FAINT[S.theme] });
    return { width: w, height: 36 + size * row, items };
  });
  if (cells !== undefined && !matrices) return html`<div class="paths"><p class="note">${chapter.own ? "The paths of this text are not in the page: it is too long, or there was no room." : "Paths lead through self-attention over one text: choose an encoder or a decoder above."}</p></div>`;
  const each = Math.ceil(12 / row), first = Math.max(0, Math.floor(top / row) - 2), last = Math.min(size, first + Math.ceil(height / row) + 4), seen = [...Array(size).keys()].slice(first, last).filter(i => i % each === 0 || i === token);
  return html`<div class="paths">
    <div class="legend">what is in <b><bdi>${shown(chapter.rowWords[token])}</bdi></b> (${token}) behind the last layer
      <label>by <select value=${kind} onChange=${e => setKind(e.target.value)}><option value="rollout">rollout</option><option value="flow" disabled=${size > FLOW_LIMIT}>maximum flow${size > FLOW_LIMIT ? " (short texts only)" : ""}</option></select></label>
      <label title="part of the stream that goes past each attention">past attention <input type="range" min="0" max="0.95" step="0.05" value=${share} onInput=${e => setShare(+e.target.value)} /> ${number(share, 2)}</label>
      ${kind === "flow" && !flows && html`<span class="faint">counting ...</span>`}</div>
    ${cells && cells.length > 0 && !cells[0].all && html`<p class="note">Long text: the ${cells[0].count} strongest links of each token are followed.</p>`}
    <div class="layernames" style=${{ height: "18px" }}>${width > 0 && [...Array(depth + 1).keys()].filter(l => depth <= 12 || l % Math.ceil(depth / 12) === 0 || l === depth).map(l => html`<span style=${{ left: x(l) + "px" }}>${l ? "layer " + chapter.layers[l - 1].layer : "input"}</span>`)}</div>
    <div class="scroller" ref=${scroller} onScroll=${e => setTop(e.currentTarget.scrollTop)}><canvas ref=${canvas} class="under"></canvas>
      <div class="long" style=${{ height: size * row + 16 + "px" }}>
        ${seen.map(i => html`<div class="source" style=${{ top: i * row + "px", height: row * each + "px", width: left - 10 + "px" }}><span class="fill" style=${{ width: result ? 100 * result[i] / most + "%" : 0 }}></span><bdi>${shown(chapter.columnWords[i])}</bdi><i>${result ? number(result[i]) : ""}</i></div>`)}
        ${seen.map(i => html`<button class=${"goal" + (i === token ? " marked" : "")} data-i=${i} style=${{ top: i * row + "px", height: row * each + "px", left: width - right + 12 + "px", width: right - 30 + "px" }} onClick=${() => set({ pin: { side: "q", i }, pair: { ...S.pair, q: i } })}><bdi>${shown(chapter.rowWords[i])}</bdi></button>`)}
      </div></div></div>`;
}
