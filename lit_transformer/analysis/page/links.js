// One head's links, or several heads' in their colours: queries on the left look at keys on the right.
const ROW = 22, MOST = 1500, MOVING = 250; // lines that are drawn: all that an eye can tell, fewer while the text moves
const factorsOf = sizes => { const most = Math.max(...sizes) || 1; return Float32Array.from(sizes, size => Math.sqrt(size / most)); };

// The least weight that is drawn: less in long texts, where weights are smaller.
const leastOf = (S, chapter) => S.threshold ?? Math.min(0.03, 0.8 / chapter.columns);
function mapKey(S, head) { return S.weighting === "gradient" ? "gradient." + head.key : head.key; }

function Links({ model, chapter, S, set, id }) {
  const scroller = useRef(), canvas = useRef(), { width, height } = useSize(scroller);
  const [top, setTop] = useState(0), [moving, setMoving] = useState(false), rest = useRef(0);
  const scrolled = event => {
    setTop(event.currentTarget.scrollTop); setMoving(true);
    clearTimeout(rest.current); rest.current = setTimeout(() => setMoving(false), 140);
  };
  const chosen = S.heads.map(i => chapter.heads[i]).filter(Boolean);
  const sources = useLoaded(() => Promise.all(chosen.map(head => chapter.linksOf(mapKey(S, head)))), [chapter.id, S.heads.join(), S.weighting]);
  const sizes = useLoaded(() => (S.weighting === "values" ? chapter.valueSizes() : Promise.resolve(null)), [chapter.id, S.weighting]);
  const left = Math.max(90, Math.min(190, width * 0.24)), right = width - left, rows = chapter.rows, columns = chapter.columns;
  const total = Math.max(rows, columns) * ROW, mark = S.hover && S.hover.chapter === chapter.id ? S.hover : S.pin;
  const reach = Math.ceil(height / ROW) + 1, first = Math.max(0, Math.floor(top / ROW));

  // The lines of what is to be seen: every query of a short text, those on the screen of a long one.
  const lines = useMemo(() => {
    if (!sources) return [];
    const found = [], least = Math.round(255 * Math.sqrt(leastOf(S, chapter))), long = rows > 512;
    sources.forEach((source, n) => {
      if (!source) return;
      const factors = sizes ? factorsOf(sizes[chosen[n].i]) : null;
      const query = i => source.each(i, (j, byte) => {
        const value = factors ? byte * factors[j] : byte;
        if (value >= least && (!mark || (mark.side === "q" ? mark.i === i : mark.i === j))) found.push([i, j, value, n]);
      });
      if (mark && mark.side === "q") query(mark.i);
      else {
        const from = long && !mark ? Math.max(0, first - 4) : 0, to = long && !mark ? Math.min(rows, first + reach + 4) : Math.min(rows, S.upTo ?? rows);
        for (let i = from; i < to; i++) query(i);
      }
    });
    found.sort((a, b) => b[2] - a[2]);
    if (found.length > 20000) found.length = 20000;
    return found;
  }, [sources, sizes, mark && mark.side, mark && mark.i, S.threshold, rows > 512 ? first : 0, reach]);
  const tint = useMemo(() => { // how much each token on the other side has to do with the marked one
    const side = new Map();
    if (mark) for (const [i, j, byte, n] of lines) {
      const at = mark.side === "q" ? j : i, known = side.get(at);
      if (!known || known[0] < byte) side.set(at, [byte, n]);
    }
    return side;
  }, [lines, mark && mark.side, mark && mark.i]);

  const alpha = byte => 0.02 + 0.95 * Math.min(1, Math.pow(byte / 255, 1.7));
  const bend = 0.45, y = i => i * ROW + ROW / 2 - top;
  useEffect(() => {
    if (!width) return;
    const c = fit(canvas.current, width, height);
    c.clearRect(0, 0, width, height);
    // The strongest that touch the screen; those that look alike are drawn in one stroke.
    const strokes = new Map();
    let count = 0;
    for (const [i, j, byte, n] of lines) {
      const y1 = y(i), y2 = y(j);
      if (Math.max(y1, y2) < -ROW || Math.min(y1, y2) > height + ROW) continue;
      const look = n * 32 + (byte >> 3);
      if (!strokes.has(look)) strokes.set(look, new Path2D());
      const path = strokes.get(look);
      path.moveTo(left + 2, y1); curve(path, [left + 2, y1, right - 2, y2], bend);
      if (++count === (moving ? MOVING : MOST)) break;
    }
    for (const look of [...strokes.keys()].sort((a, b) => (a & 31) - (b & 31))) {
      const byte = (look & 31) * 8 + 4;
      c.globalAlpha = alpha(byte); c.strokeStyle = headColour(S.theme, look >> 5); c.lineWidth = 0.8 + 2.4 * byte / 255;
      c.stroke(strokes.get(look));
    }
  }, [lines, width, height, top, S.theme, moving]);
  useEffect(() => { scroller.current.scrollTop = 0; setTop(0); }, [chapter.id]);

  const token = (side, i, word) => {
    const isMarked = mark && mark.side === side && mark.i === i, isPinned = S.pin && S.pin.side === side && S.pin.i === i;
    const share = mark && mark.side !== side ? tint.get(i) : null;
    return html`<div class=${"token " + side + (isMarked ? " marked" : "") + (isPinned ? " pinned" : "") + (side === "q" && i >= model.given && chapter.queries === "words" ? " written" : "")}
      key=${side + i} role="button" tabindex="0" data-i=${i} data-side=${side} title=${`${i}: ${shown(word)}` + (share ? `\nweight ${number(weightOf(share[0]))}` : "")}
      style=${{ top: i * ROW + "px", background: share ? `color-mix(in srgb, ${headColour(S.theme, share[1])} ${Math.round(70 * share[0] / 255)}%, transparent)` : "" }}
      onMouseEnter=${() => set({ hover: { chapter: chapter.id, side, i } })} onMouseLeave=${() => set({ hover: null })}
      onKeyDown=${e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); e.stopPropagation(); e.target.click(); } }}
      onClick=${() => set({ pin: isPinned ? null : { side, i }, pair: side === "q" ? { ...S.pair, q: i } : { ...S.pair, k: i } })}><bdi>${shown(word)}</bdi></div>`;
  };
  const part = (side, words) => words.slice(first, first + reach).map((word, n) => token(side, first + n, word));
  useScene(id, () => {
    const count = Math.min(Math.max(rows, columns), 400), items = [], w = 560, l = 150, r = 410;
    for (let i = 0; i < count; i++) {
      if (i < rows) items.push({ text: shown(chapter.rowWords[i]), x: l - 6, y: i * ROW + 15, anchor: "end", colour: INK[S.theme] });
      if (i < columns) items.push({ text: shown(chapter.columnWords[i]), x: r + 6, y: i * ROW + 15, colour: INK[S.theme] });
    }
    for (const [i, j, byte, n] of lines) if (i < count && j < count) items.push({ line: [l, i * ROW + ROW / 2, r, j * ROW + ROW / 2], bend, colour: headColour(S.theme, n), alpha: alpha(byte), width: 0.8 + 2.4 * byte / 255 });
    return { width: w, height: count * ROW, items };
  });
  const missing = sources && sources.some(each => !each), partly = sources && sources.some(each => each && !each.all);
  return html`<div class="links">
    <div class="legend"><span class="faint">queries</span>${chosen.map((head, n) => html`<span class="chip" style=${{ "--colour": headColour(S.theme, n) }}>${head.name}</span>`)}<span class="faint">keys</span></div>
    ${missing && html`<p class="note">${S.weighting === "gradient" ? "Gradients of this head are not in the page (no room, or too long a text)." : "The links of this head are not in the page: there was no room."} Ask for it by --heads ${chosen[0] && chosen[0].name}.</p>`}
    ${partly && html`<p class="note">Long text: the ${sources.find(each => each && !each.all).count} strongest links of each query.</p>`}
    <div class="scroller" ref=${scroller} onScroll=${scrolled}>
      <canvas ref=${canvas} class="under"></canvas>
      <div class="long" style=${{ height: total + "px" }}>
        <div class="column left" style=${{ width: left + "px" }}>${part("q", chapter.rowWords)}</div>
        <div class="column right" style=${{ width: left + "px" }}>${part("k", chapter.columnWords)}</div>
      </div>
    </div></div>`;
}
