// Why a query looks at a key: its vector, the key's, their product by dimension, and what is done to it.
function Why({ model, chapter, S, set, id }) {
  const head = chapter.heads[S.heads[S.heads.length - 1]] || chapter.heads[0], layer = chapter.layers[head.place];
  const found = useLoaded(() => Promise.all([chapter.vectors(head.key), chapter.linksOf(head.key), chapter.valueSizes()]), [chapter.id, head.key]);
  const [byPart, setByPart] = useState(false);
  const picture = useRef();
  const q = Math.min(S.pair ? S.pair.q ?? chapter.rows - 1 : chapter.rows - 1, chapter.rows - 1), k = Math.min(S.pair ? S.pair.k ?? 0 : 0, chapter.columns - 1);
  useScene(id, () => picture.current && SCENES_OF_WHY(picture.current));
  const choose = patch => set({ pair: { q, k, ...patch } });
  const pick = (label, side, words, value) => html`<label>${label} <select value=${value} onChange=${e => choose({ [side]: +e.target.value })}>
    ${(words.length > 2000 ? words.slice(Math.max(0, value - 500), value + 500).map((w, n) => [Math.max(0, value - 500) + n, w]) : words.map((w, n) => [n, w])).map(([n, w]) => html`<option value=${n}>${n} ${shown(w)}</option>`)}</select></label>`;
  const bar = html`<div class="legend">head <span class="chip" style=${{ "--colour": headColour(S.theme, Math.max(0, S.heads.length - 1)) }}>${head.name}</span> ${pick("query", "q", chapter.rowWords, q)} ${pick("key", "k", chapter.columnWords, k)}</div>`;
  if (found === undefined) return html`<div class="why">${bar}</div>`;
  const [stored, links, sizes] = found || [];
  const ranked = [];
  if (links) links.each(q, (j, byte) => ranked.push([j, weightOf(byte)]));
  ranked.sort((a, b) => b[1] - a[1]);
  const place = ranked.findIndex(each => each[0] === k), weight = place >= 0 ? ranked[place][1] : 0;
  const top = html`<div class="card"><h3>Where this query looks</h3>${ranked.slice(0, 10).map(([j, w]) => html`<button class=${"bar" + (j === k ? " marked" : "")} onClick=${() => choose({ k: j })}>
    <span class="name"><bdi>${shown(chapter.columnWords[j])}</bdi> <i>${j}</i></span><span class="track"><span style=${{ width: 100 * w / ranked[0][1] + "%" }}></span></span><span class="amount">${number(w)}</span></button>`)}
    ${!ranked.length && html`<p class="faint">${links ? "This query sees nothing." : "The links of this head are not in the page."}</p>`}</div>`;
  if (!stored) return html`<div class="why">${bar}<p class="note">Queries, keys and values of head ${head.name} are not in the page${model.name ? "" : ""} (no room, or the model does not show them). Ask for them by --heads ${head.name}.</p><div class="cards">${top}</div></div>`;
  const dot = (a, b) => a.reduce((sum, x, d) => sum + x * b[d], 0);
  const a = vector(stored.q, q), b = vector(stored.k, k), products = a.map((x, d) => x * b[d]), raw = dot(a, b), scale = 1 / Math.sqrt(stored.size);
  const plain = stored.plainQ ? dot(vector(stored.plainQ, q), vector(stored.plainK, k)) : null;
  const scaled = raw * scale, capped = layer.cap ? layer.cap * Math.tanh(scaled / layer.cap) : scaled;
  const bias = !stored.hasBias ? 0 : stored.bias ? stored.byDistance ? stored.bias[q - k + chapter.columns - 1] : stored.bias[q * chapter.columns + k] : null;
  const score = bias === null ? null : capped + bias, visible = weight > 0 || (chapter.own && k <= q) || !chapter.own;
  const sum = stored.sums[q], again = score === null ? null : Math.exp(score - sum);
  const steps = plain !== null
    ? [["content: q·k before the position turned them", plain], ["what turning by position adds", raw - plain, true]] : [];
  steps.push(["q·k", raw], [`× 1/√${stored.size}`, scaled]);
  if (layer.cap) steps.push([`bent to stay within ±${layer.cap}`, capped]);
  if (stored.hasBias) steps.push(["bias of the position", bias, true]);
  steps.push(["score", score], ["− log Σ exp of this query's scores", -sum, true], ["weight = exp of that", again]);
  const most = Math.max(...steps.slice(0, -1).map(each => Math.abs(each[1] ?? 0)), 1e-9);
  const order = [...products.keys()];
  if (byPart) order.sort((x, y) => Math.abs(products[y]) - Math.abs(products[x]));
  const w = 680, cell = w / order.length, largest = Math.max(...products.map(Math.abs), 1e-9), big = Math.max(...a.map(Math.abs), ...b.map(Math.abs), 1e-9);
  const sign = x => (x >= 0 ? "positive" : "negative");
  const strip = (values, y, name) => html`<text x="0" y=${y + 14} class="label">${name}</text>${order.map((d, n) => html`<rect x=${60 + n * cell} y=${y} width=${Math.max(cell - 0.5, 0.5)} height="20" class=${sign(values[d])} opacity=${Math.abs(values[d]) / big}><title>${`${name}, dimension ${d}: ${number(values[d])}`}</title></rect>`)}`;
  const v = stored.v && vector(stored.v, k), length = sizes && sizes[head.i][k];
  return html`<div class="why">${bar}
    <p class="sentence"><b><bdi>${shown(chapter.rowWords[q])}</bdi></b> looks at <b><bdi>${shown(chapter.columnWords[k])}</bdi></b> with weight <b>${number(weight)}</b>${place >= 0 ? `, its ${place === 0 ? "strongest" : `${place + 1}${["st", "nd", "rd"][((place + 1) % 100 >= 11 && (place + 1) % 100 <= 13) ? 9 : (place % 10)] || "th"} strongest`} link` : visible ? "" : ": the mask hides it, whatever the score"}.</p>
    <div class="cards"><div class="card steps"><h3>From product to weight</h3><table>${steps.map(([name, value, added]) => html`<tr class=${added ? "added" : ""}><td>${name}</td><td class="amount">${added && value >= 0 ? "+" : ""}${number(value)}</td>
      <td class="meter"><svg width="120" height="12"><line x1="60" x2="60" y1="0" y2="12" class="axis" />${value != null && name[0] !== "w" && html`<rect x=${60 + Math.min(0, value / most * 58)} width=${Math.abs(value / most * 58)} y="2" height="8" class=${sign(value)} />`}</svg></td></tr>`)}</table>
      <p class="faint">Vectors are kept in 8 bits a number, so the weight found here may differ from the recorded ${number(weight)} in its last digits.</p></div>${top}</div>
    <div class="card"><h3>q·k by dimension <label class="right"><input type="checkbox" checked=${byPart} onChange=${() => setByPart(!byPart)} /> largest first</label></h3>
      <svg ref=${picture} class="dimensions" viewBox="0 0 ${w + 64} 196" role="img" aria-label="products by dimension">${strip(a, 4, "query")}${strip(b, 28, "key")}
        <line x1="60" x2=${w + 60} y1="122" y2="122" class="axis" />${order.map((d, n) => html`<rect x=${60 + n * cell} y=${122 - Math.max(0, products[d]) / largest * 64} width=${Math.max(cell - 0.5, 0.5)} height=${Math.max(0.5, Math.abs(products[d]) / largest * 64)} class=${sign(products[d])}><title>${`dimension ${d}: ${number(a[d])} × ${number(b[d])} = ${number(products[d])}`}</title></rect>`)}
        <text x="0" y="126" class="label">product</text></svg>
      ${v && html`<p class="faint">Value of this key: length ${number(Math.sqrt(dot(v, v)))}${length ? `, ${number(length)} behind the head's product; it adds weight × length = ${number(weight * length)}` : ""}.</p>`}</div></div>`;
}
// The picture of the dimensions as a scene: what the browser drew, with its colours.
function SCENES_OF_WHY(svg) {
  const items = [], colour = element => getComputedStyle(element).fill;
  for (const each of svg.querySelectorAll("rect,line,text")) {
    const value = name => +each.getAttribute(name);
    if (each.tagName === "rect") items.push({ rect: [value("x"), value("y"), value("width"), value("height")], colour: colour(each), alpha: each.hasAttribute("opacity") ? value("opacity") : 1 });
    if (each.tagName === "line") items.push({ line: [value("x1"), value("y1"), value("x2"), value("y2")], colour: getComputedStyle(each).stroke });
    if (each.tagName === "text") items.push({ text: each.textContent, x: value("x"), y: value("y"), colour: colour(each), size: 12 });
  }
  return { width: svg.viewBox.baseVal.width, height: svg.viewBox.baseVal.height, items };
}
