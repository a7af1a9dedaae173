// The text token by token: where each looks, and what the network would say behind each layer (logit lens).
function Steps({ model, chapter, S, set, id }) {
  const lens = useLoaded(() => model.lensTable(), [model.id]);
  const chosen = S.heads.map(i => chapter.heads[i]).filter(Boolean);
  const sources = useLoaded(() => Promise.all(chosen.map(head => chapter.linksOf(mapKey(S, head)))), [chapter.id, S.heads.join(), S.weighting]);
  const [playing, setPlaying] = useState(false);
  const rows = chapter.rows, step = Math.min(S.step ?? (model.given < rows && chapter.queries === "words" ? model.given - 1 : rows - 1), rows - 1), at = useRef(step);
  at.current = step;
  useEffect(() => {
    if (!playing) return;
    const clock = setInterval(() => { if (at.current + 1 >= rows) setPlaying(false); else set({ step: at.current + 1 }); }, 600);
    return () => clearInterval(clock);
  }, [playing]);
  const tint = new Map();
  if (sources) sources.forEach((source, n) => source && source.each(step, (j, byte) => { const known = tint.get(j); if (!known || known[0] < byte) tint.set(j, [byte, n]); }));
  const strongest = Math.max(1, ...[...tint.values()].map(each => each[0])); // the tint is by share of the strongest link
  const same = chapter.queries === chapter.keys, own = chapter.queries === "words";
  const from = Math.max(0, step - 600), to = Math.min(chapter.columns, step + 600);
  const word = (side, i, text) => {
    const share = side === "k" ? tint.get(i) : null, later = side === "q" || same ? i > step : false;
    return html`<button class=${"word" + (i === step && (side === "q" || same) ? " marked" : "") + (later ? " later" : "") + (own && (side === "q" || same) && i >= model.given ? " written" : "")} key=${side + i} data-i=${i}
      style=${{ background: share ? `color-mix(in srgb, ${headColour(S.theme, share[1])} ${Math.round(85 * (share[0] / strongest) ** 1.5)}%, transparent)` : "" }}
      title=${`${i}` + (share ? `: weight ${number(weightOf(share[0]))}` : "")} onClick=${() => (side === "q" || same) && set({ step: i })}><bdi>${shown(text)}</bdi></button>${/\n/.test(text) ? html`<br />` : ""}`;
  };
  const keys = chapter.columnWords.slice(same ? from : 0, same ? to : 1200).map((text, n) => word("k", (same ? from : 0) + n, text));
  const colours = table(S.theme, 1);
  const near = [...Array(Math.min(rows, 13)).keys()].map(n => Math.max(0, Math.min(step - 6, rows - 13)) + n);
  useScene(id, () => {
    if (!lens || !own) return null;
    const items = [], cell = 84, high = 24;
    near.forEach((i, n) => items.push({ text: shown(model.words[i]).slice(0, 12), x: 64 + n * cell + cell / 2, y: 16, anchor: "middle", size: 12, colour: INK[S.theme] }));
    for (let l = 0; l < model.lens.layers; l++) {
      const y = 24 + (model.lens.layers - 1 - l) * high;
      items.push({ text: "layer " + l, x: 56, y: y + 16, anchor: "end", size: 11, colour: FAINT[S.theme] });
      near.forEach((i, n) => { const { word, p } = lens(l, i, 0); items.push({ rect: [64 + n * cell, y, cell - 1, high - 1], colour: css(colours, Math.round(255 * Math.sqrt(p))) }, { text: shown(word).slice(0, 11), x: 64 + n * cell + cell / 2, y: y + 16, anchor: "middle", size: 11, colour: p > 0.25 ? PAPER[S.theme] : INK[S.theme] }); });
    }
    return { width: 70 + near.length * cell, height: 30 + model.lens.layers * high, items };
  });
  const last = step === rows - 1 && own;
  return html`<div class="stepping">
    <div class="legend"><button onClick=${() => set({ step: Math.max(0, step - 1) })} title="one back ([)">‹</button>
      <button onClick=${() => { if (step + 1 >= rows) set({ step: own ? Math.max(0, model.given - 1) : 0 }); setPlaying(!playing); }}>${playing ? "pause" : "play"}</button>
      <button onClick=${() => set({ step: Math.min(rows - 1, step + 1) })} title="one on (])">›</button>
      <input class="wide" type="range" min="0" max=${rows - 1} value=${step} aria-label="token" onInput=${e => set({ step: +e.target.value })} />
      <output>token ${step} of ${rows}${own && model.given < rows ? step + 1 < model.given ? ", reading" : `, writing ${step + 2 - model.given} of ${rows - model.given + 1}` : ""}</output></div>
    <div class="reading">${!same && html`<h3>${chapter.queries === "words" ? "what is written" : "text"}</h3><p class="text">${chapter.rowWords.slice(from, to).map((text, n) => word("q", from + n, text))}</p><h3>source</h3>`}
      <p class="text">${keys}</p>
      ${lens && own && html`<p class="sentence">Behind <b><bdi>${shown(model.words[step])}</bdi></b> the network says ${last && model.next.length ? model.next.slice(0, 3).map(([text, p]) => html`<span class="guess"><bdi>${shown(text)}</bdi> ${number(p, 2)}</span>`) : [0, 1, 2].slice(0, model.lens.count).map(n => { const { word, p } = lens(model.lens.layers - 1, step, n); return html`<span class="guess"><bdi>${shown(word)}</bdi> ${number(p, 2)}</span>`; })}</p>
        <h3>Logit lens: what it would say behind each layer</h3><div class="lens"><table><thead><tr><th></th>${near.map(i => html`<th class=${i === step ? "marked" : ""}><bdi>${shown(model.words[i])}</bdi></th>`)}</tr></thead><tbody>
        ${[...Array(model.lens.layers).keys()].reverse().map(l => html`<tr><th>layer ${l}</th>${near.map(i => { const { word, p } = lens(l, i, 0); return html`<td title=${[0, 1, 2].slice(0, model.lens.count).map(n => { const each = lens(l, i, n); return `${shown(each.word)} ${number(each.p)}`; }).join("\n")} style=${{ background: css(colours, Math.round(255 * Math.sqrt(p))), color: p > 0.25 ? PAPER[S.theme] : INK[S.theme] }}><bdi>${shown(word)}</bdi></td>`; })}</tr>`)}</tbody></table></div>`}</div></div>`;
}
