// The matrix of one head, from the whole text down to single cells; levels of detail are read as they are needed.
const LEFT = 96, ABOVE = 84, VIEWS = new Map();

function Matrix({ model, chapter, S, set, id, link }) {
  useArrivals();
  const box = useRef(), canvas = useRef(), { width, height } = useSize(box);
  const head = chapter.heads[S.heads[S.heads.length - 1]] || chapter.heads[0];
  const key = S.what === "head" ? mapKey(S, head) : S.what + "." + Math.min(S.depth, chapter.layers.length - 1);
  const sizes = useLoaded(() => (S.weighting === "values" && S.what === "head" ? chapter.valueSizes() : Promise.resolve(null)), [chapter.id, S.weighting, S.what]);
  const view = S.views[link] || null, [over, setOver] = useState(null), drag = useRef(null);
  const levels = chapter.levels(key);
  const across = width - LEFT, high = height - ABOVE, whole = Math.min(across / chapter.columns, high / chapter.rows);
  const scale = view ? view.scale : Math.min(whole, 40), x0 = view ? view.x : 0, y0 = view ? view.y : 0; // cells at the corner
  const put = next => {
    const s = Math.max(Math.min(whole, 40) * 0.9, Math.min(64, next.scale));
    const clampTo = (value, cells, room) => Math.max(0, Math.min(value, cells - room / s));
    set({ views: { ...S.views, [link]: { scale: s, x: clampTo(next.x, chapter.columns, across), y: clampTo(next.y, chapter.rows, high) } } });
  };
  const zoom = (factor, px = across / 2, py = high / 2) => {
    const s = Math.max(Math.min(whole, 40) * 0.9, Math.min(64, scale * factor));
    put({ scale: s, x: x0 + px / scale - px / s, y: y0 + py / scale - py / s });
  };
  VIEWS.set(id, { zoom, fit: () => set({ views: { ...S.views, [link]: null } }) });
  const level = levels.length ? (levels.find(each => 2 ** each[0] * scale >= 0.9) || levels[levels.length - 1]) : null;
  const finest = levels.length && levels[0][0] === 0;

  // Bytes of one cell at the finest level that is there.
  const byteAt = (i, j) => {
    if (!levels.length) return null;
    const [n] = levels[0], row = i >> n, column = j >> n;
    const tile = chapter.tileNow(key, n, Math.floor(row / TILE), Math.floor(column / TILE));
    return tile ? tile.cells[(row % TILE) * tile.columns + (column % TILE)] : null;
  };
  const factors = sizes && sizes[head.i] ? factorsOf(sizes[head.i]) : null;
  useEffect(() => {
    if (width < 10 || height < 10) return;
    const c = fit(canvas.current, width, height), colours = table(S.theme, S.contrast);
    c.fillStyle = PAPER[S.theme]; c.fillRect(0, 0, width, height);
    if (level) {
      const [n, rows, columns] = level, cell = scale * 2 ** n;
      c.save(); c.beginPath(); c.rect(LEFT, ABOVE, across, high); c.clip();
      c.imageSmoothingEnabled = false;
      const firstRow = Math.max(0, Math.floor(y0 / 2 ** n / TILE)), lastRow = Math.min(Math.ceil(rows / TILE) - 1, Math.floor((y0 + high / scale) / 2 ** n / TILE));
      const firstColumn = Math.max(0, Math.floor(x0 / 2 ** n / TILE)), lastColumn = Math.min(Math.ceil(columns / TILE) - 1, Math.floor((x0 + across / scale) / 2 ** n / TILE));
      for (let r = firstRow; r <= lastRow; r++) for (let q = firstColumn; q <= lastColumn; q++) {
        const tile = chapter.tileNow(key, n, r, q);
        if (!tile) continue;
        const look = S.theme + S.contrast + (factors ? "v" : "");
        if (!tile.picture || tile.look !== look) {
          tile.picture = tile.picture || document.createElement("canvas"); tile.look = look;
          let scaled = null;
          if (factors) { scaled = new Float32Array(tile.columns); for (let j = 0; j < tile.columns; j++) { const at = (q * TILE + j) << n; for (let m = 0; m < 2 ** n && at + m < factors.length; m++) scaled[j] = Math.max(scaled[j], factors[at + m]); } }
          paint(tile.picture, tile.cells, tile.rows, tile.columns, colours, scaled);
        }
        c.drawImage(tile.picture, LEFT + (q * TILE * 2 ** n - x0) * scale, ABOVE + (r * TILE * 2 ** n - y0) * scale, tile.columns * cell, tile.rows * cell);
      }
      if (scale >= 30 && n === 0) {
        c.font = "10px system-ui, sans-serif"; c.textAlign = "center"; c.textBaseline = "middle";
        for (let i = Math.floor(y0); i < Math.min(chapter.rows, y0 + high / scale); i++) for (let j = Math.floor(x0); j < Math.min(chapter.columns, x0 + across / scale); j++) {
          const byte = byteAt(i, j);
          if (byte) { c.fillStyle = Math.pow(byte / 255, S.contrast) > 0.5 ? PAPER[S.theme] : INK[S.theme]; c.fillText(weightOf(byte).toFixed(2).replace(/^0/, ""), LEFT + (j + 0.5 - x0) * scale, ABOVE + (i + 0.5 - y0) * scale); }
        }
      }
      const frame = (i, j, colour) => { c.strokeStyle = colour; c.lineWidth = 1.5; c.strokeRect(LEFT + (j - x0) * scale, ABOVE + (i - y0) * scale, Math.max(scale, 3), Math.max(scale, 3)); };
      if (over) { c.fillStyle = FAINT[S.theme]; c.globalAlpha = 0.16; c.fillRect(LEFT, ABOVE + (over.i - y0) * scale, across, Math.max(scale, 1)); c.fillRect(LEFT + (over.j - x0) * scale, ABOVE, Math.max(scale, 1), high); c.globalAlpha = 1; }
      if (S.pair) frame(S.pair.q, S.pair.k, headColour(S.theme, 1));
      c.restore();
    }
    // Names at the edges, as many as there is room for.
    c.font = "11px system-ui, sans-serif"; c.textBaseline = "middle";
    const step = Math.max(1, Math.ceil(10 / scale)), beside = step > 1 ? Math.ceil(17 / scale) : 1, cut = word => { const text = shown(word); return text.length > 12 ? text.slice(0, 11) + "…" : text; };
    const name = (i, word, hot) => { c.fillStyle = hot ? headColour(S.theme, 1) : INK[S.theme]; return step > 1 ? `${i} ${cut(word)}` : cut(word); };
    c.textAlign = "right";
    for (let i = Math.ceil(y0 / step) * step; i < Math.min(chapter.rows, y0 + high / scale); i += step) c.fillText(name(i, chapter.rowWords[i], over && over.i === i), LEFT - 6, ABOVE + (i + 0.5 - y0) * scale);
    c.textAlign = "left";
    for (let j = Math.ceil(x0 / beside) * beside; j < Math.min(chapter.columns, x0 + across / scale); j += beside) { c.save(); c.translate(LEFT + (j + 0.5 - x0) * scale, ABOVE - 6); c.rotate(-Math.PI / 3); c.fillText(name(j, chapter.columnWords[j], over && over.j === j), 0, 0); c.restore(); }
  });
  const cellAt = event => {
    const box = canvas.current.getBoundingClientRect(), i = Math.floor(y0 + (event.clientY - box.top - ABOVE) / scale), j = Math.floor(x0 + (event.clientX - box.left - LEFT) / scale);
    return i >= 0 && j >= 0 && i < chapter.rows && j < chapter.columns && event.clientX - box.left > LEFT && event.clientY - box.top > ABOVE ? { i, j } : null;
  };
  useEffect(() => { // as a listener of its own: a page may only keep a wheel from scrolling if it says so
    const wheel = event => { event.preventDefault(); const b = canvas.current.getBoundingClientRect(); VIEWS.get(id).zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), event.clientX - b.left - LEFT, event.clientY - b.top - ABOVE); };
    const at = canvas.current;
    at.addEventListener("wheel", wheel, { passive: false });
    return () => at.removeEventListener("wheel", wheel);
  }, [id]);
  const move = event => {
    if (drag.current) {
      const { px, py, x, y } = drag.current;
      if (Math.abs(event.clientX - px) + Math.abs(event.clientY - py) > 3) drag.current.moved = true;
      put({ scale, x: x - (event.clientX - px) / scale, y: y - (event.clientY - py) / scale });
    } else { const at = cellAt(event); if (!at !== !over || (at && (at.i !== over.i || at.j !== over.j))) setOver(at); }
  };
  const choosePair = (q, k) => {
    set({ pair: { q, k } });
    if ((k - x0) * scale > across || k < x0 || (q - y0) * scale > high || q < y0) put({ scale, x: k - across / scale / 2, y: q - high / scale / 2 });
  };
  const keys = event => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault(); event.stopPropagation();
    const at = S.pair || { q: 0, k: 0 };
    choosePair(Math.max(0, Math.min(chapter.rows - 1, at.q + move[0])), Math.max(0, Math.min(chapter.columns - 1, at.k + move[1])));
  };
  const say = at => {
    const byte = byteAt(at.i, at.j), value = byte == null ? "..." : number(weightOf(byte), 4);
    const what = S.weighting === "gradient" && S.what === "head" ? "share of the largest weight × gradient" : finest ? "weight" : `largest of ${2 ** levels[0][0]} × ${2 ** levels[0][0]}`;
    const factor = factors ? `; by length of value ${number(weightOf(byte * factors[at.j]), 4)}` : "";
    return html`<b>${shown(chapter.rowWords[at.i])}</b> <span class="faint">(${at.i})</span> looks at <b>${shown(chapter.columnWords[at.j])}</b> <span class="faint">(${at.j})</span>: ${what} <b>${value}</b>${factor}`;
  };
  useScene(id, () => {
    const pick = levels.find(each => Math.max(each[1], each[2]) <= 128) || levels[levels.length - 1];
    if (!pick) return null;
    const near = 2 ** level[0] * scale >= 3 && (across / scale) * (high / scale) < 40000 ? level : pick, [n, rows, columns] = near, u = 2 ** n, colours = table(S.theme, S.contrast);
    const part = near === level && near !== pick || scale > whole * 1.05;
    const r0 = part ? Math.floor(y0 / u) : 0, r1 = part ? Math.min(rows, Math.ceil((y0 + high / scale) / u)) : rows, c0 = part ? Math.floor(x0 / u) : 0, c1 = part ? Math.min(columns, Math.ceil((x0 + across / scale) / u)) : columns;
    const side = Math.max(4, Math.min(22, 700 / Math.max(r1 - r0, c1 - c0))), items = [];
    for (let i = r0; i < r1; i++) {
      let from = c0, last = -1;
      const flush = to => { if (last > 0) items.push({ rect: [110 + (from - c0) * side, 100 + (i - r0) * side, (to - from) * side, side], colour: css(colours, last) }); };
      for (let j = c0; j < c1; j++) {
        const tile = chapter.tileNow(key, n, Math.floor(i / TILE), Math.floor(j / TILE)), raw = tile ? tile.cells[(i % TILE) * tile.columns + (j % TILE)] : 0;
        const byte = factors ? Math.min(255, Math.round(raw * factors[Math.min(factors.length - 1, j * u)])) : raw;
        if (byte !== last) { flush(j); from = j; last = byte; }
      }
      flush(c1);
    }
    const each = Math.max(1, Math.ceil(12 / side));
    for (let i = r0; i < r1; i += each) items.push({ text: shown(chapter.rowWords[i * u]).slice(0, 16), x: 104, y: 100 + (i - r0 + 0.5) * side + 4, size: 11, anchor: "end", colour: INK[S.theme] });
    for (let j = c0; j < c1; j += each) items.push({ text: shown(chapter.columnWords[j * u]).slice(0, 16), x: 110 + (j - c0 + 0.5) * side, y: 94, size: 11, turn: -60, colour: INK[S.theme] });
    return { width: 130 + (c1 - c0) * side, height: 112 + (r1 - r0) * side, items };
  });
  const at = over || (S.pair ? { i: Math.min(S.pair.q, chapter.rows - 1), j: Math.min(S.pair.k, chapter.columns - 1) } : null);
  return html`<div class="matrix">
    <div class="legend">${S.what === "head" ? html`head <span class="chip" style=${{ "--colour": headColour(S.theme, Math.max(0, S.heads.length - 1)) }}>${head.name}</span>` : `${S.what === "mean" ? "mean of the heads of layer" : "rolled out to layer"} ${chapter.layers[Math.min(S.depth, chapter.layers.length - 1)].layer}`}
      ${chapter.own && chapter.map("mean.0") && html`<label>show <select value=${S.what} onChange=${e => set({ what: e.target.value })}><option value="head">one head</option><option value="mean">a layer's mean</option><option value="rollout">rollout</option></select></label>`}
      ${S.what !== "head" && html`<label>layer <input type="range" min="0" max=${chapter.layers.length - 1} value=${S.depth} onInput=${e => set({ depth: +e.target.value })} /></label>`}
      <span class="spacer"></span><button onClick=${() => zoom(1.6)} title="zoom in (+)">+</button><button onClick=${() => zoom(1 / 1.6)} title="zoom out (-)">−</button><button onClick=${() => VIEWS.get(id).fit()} title="the whole matrix (0)">fit</button></div>
    ${!levels.length && html`<p class="note">This matrix is not in the page (no room, or too long a text).${S.what === "head" ? ` Ask for it by --heads ${head.name}.` : ""}</p>`}
    ${levels.length > 0 && !finest && html`<p class="note">Overview only: each cell is the largest of ${2 ** levels[0][0]} × ${2 ** levels[0][0]}. Ask for every cell by --heads ${head.name}.</p>`}
    <div class="stage" ref=${box}><canvas ref=${canvas} tabindex="0" role="img" aria-label="Attention matrix; arrow keys move the chosen cell" onPointerDown=${e => { drag.current = { px: e.clientX, py: e.clientY, x: x0, y: y0 }; e.currentTarget.setPointerCapture(e.pointerId); }}
      onPointerMove=${move} onPointerUp=${e => { const was = drag.current; drag.current = null; const cell = cellAt(e); if (was && !was.moved && cell) set({ pair: { q: cell.i, k: cell.j } }); }}
      onPointerLeave=${() => setOver(null)} onDblClick=${e => { const cell = cellAt(e); if (cell) set({ pair: { q: cell.i, k: cell.j }, tab: "why" }); }} onKeyDown=${keys}></canvas></div>
    <p class="said" aria-live="polite">${at && levels.length ? say(at) : "Wheel zooms, drag moves, click chooses a pair, double click asks why."}</p></div>`;
}
