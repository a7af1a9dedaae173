// What the page holds, read on demand: blobs are base64 in elements of their own, deflated.
const { h, render, createElement } = preact;
const { useState, useEffect, useRef, useMemo, useLayoutEffect, useCallback } = preactHooks;
const html = htm.bind(h);
const INDEX = JSON.parse(document.getElementById("index").textContent);
const TILE = 256;

function bytesOf(number) {
  const text = document.getElementById("b" + number).textContent;
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Things being read and things read, the least recently used ones forgotten.
class Shelf {
  constructor(most) { this.most = most; this.things = new Map(); this.waiting = new Map(); this.listeners = new Set(); }
  now(key, make) { // what is there, or undefined: it is then being fetched, and listeners are told when it is there
    if (this.things.has(key)) {
      const thing = this.things.get(key);
      this.things.delete(key); this.things.set(key, thing);
      return thing;
    }
    this.later(key, make);
    return undefined;
  }
  later(key, make) {
    if (this.things.has(key)) return Promise.resolve(this.things.get(key));
    if (!this.waiting.has(key)) {
      this.waiting.set(key, Promise.resolve().then(make).then(thing => {
        this.waiting.delete(key);
        this.things.set(key, thing);
        while (this.things.size > this.most) this.things.delete(this.things.keys().next().value);
        for (const listener of this.listeners) listener();
        return thing;
      }).catch(error => { this.waiting.delete(key); console.error(error); throw error; }));
      this.waiting.get(key).catch(() => {});
    }
    return this.waiting.get(key);
  }
}
const SHELF = new Shelf(1500), BASE = new Shelf(12);

// One chapter of one model: the attentions of a stack.
class Chapter {
  constructor(model, described, id) {
    Object.assign(this, described);
    this.model = model; this.id = id;
    this.rowWords = model[described.queries]; this.columnWords = model[described.keys];
    this.heads = [];
    this.layers.forEach((layer, place) => {
      for (let head = 0; head < layer.heads; head++) {
        const i = this.heads.length;
        this.heads.push({ i, place, head, layer: layer.layer, key: place + "." + head, name: layer.layer + "." + head,
          metrics: described.metrics.values[i] });
      }
    });
    this.own = !this.cross && this.rows === this.columns;
  }
  map(key) { return this.maps[key]; }
  // The levels that there are of a matrix, finest first: [number of halvings, rows, columns].
  levels(key) {
    const found = [], map = this.maps[key];
    if (map) map.levels.forEach(([rows, columns], i) => found.push([map.first + i, rows, columns]));
    if (/^\d/.test(key)) {
      const { rows, columns, level } = this.thumbs;
      if (!found.some(each => each[0] === level)) found.push([level, rows, columns]);
    }
    return found;
  }
  async loadThumbs() {
    return SHELF.later(this.id + "thumbs", async () => {
      const { blob, rows, columns } = this.thumbs, all = await inflate(bytesOf(blob));
      return this.heads.map((_, i) => all.subarray(i * rows * columns, (i + 1) * rows * columns));
    });
  }
  async tile(key, level, row, column) {
    const map = this.maps[key], place = map ? level - map.first : -1;
    if (!map || place < 0 || place >= map.levels.length) { // the smallest level stands among the small pictures
      const number = this.heads.findIndex(head => head.key === key);
      return { rows: this.thumbs.rows, columns: this.thumbs.columns, cells: (await this.loadThumbs())[number] };
    }
    const [rows, columns, blob, lengths] = map.levels[place];
    const across = Math.ceil(columns / TILE), number = row * across + column;
    const height = Math.min(TILE, rows - row * TILE), width = Math.min(TILE, columns - column * TILE);
    if (!lengths[number]) return { rows: height, columns: width, cells: new Uint8Array(height * width) };
    let start = 0;
    for (let i = 0; i < number; i++) start += lengths[i];
    const bytes = await BASE.later("b" + blob, () => bytesOf(blob));
    return { rows: height, columns: width, cells: await inflate(bytes.subarray(start, start + lengths[number])) };
  }
  tileNow(key, level, row, column) {
    return SHELF.now([this.id, key, level, row, column].join("/"), () => this.tile(key, level, row, column));
  }
  // A whole matrix at its finest level, if that is every cell and not too much to hold.
  whole(key) {
    return SHELF.later(this.id + "whole" + key, async () => {
      const levels = this.levels(key);
      if (!levels.length || levels[0][0] !== 0 || this.rows * this.columns > 6e6) return null;
      const cells = new Uint8Array(this.rows * this.columns);
      for (let row = 0; row * TILE < this.rows; row++) for (let column = 0; column * TILE < this.columns; column++) {
        const tile = await this.tile(key, 0, row, column);
        for (let i = 0; i < tile.rows; i++)
          cells.set(tile.cells.subarray(i * tile.columns, (i + 1) * tile.columns), (row * TILE + i) * this.columns + column * TILE);
      }
      return cells;
    });
  }
  wholeNow(key) { return SHELF.now(this.id + "whole" + key, () => this.whole(key)); }
  // The strongest links of each query: {count, keys, cells}, column by column.
  strongest(key) {
    return SHELF.later(this.id + "links" + key, async () => {
      const described = this.links[key];
      if (!described) return null;
      const bytes = await inflate(bytesOf(described.blob)), size = this.rows * described.count;
      return { count: described.count, keys: new Uint16Array(bytes.buffer, 0, size), cells: bytes.subarray(2 * size, 3 * size) };
    });
  }
  // What the links view draws: row i -> calls back with (key, byte).
  async linksOf(key) {
    const whole = await this.whole(key);
    if (whole) return { each: (i, call) => { for (let j = 0, at = i * this.columns; j < this.columns; j++) if (whole[at + j]) call(j, whole[at + j]); }, all: true };
    const top = await this.strongest(key);
    if (top) return { each: (i, call) => { for (let n = 0; n < top.count; n++) { const at = n * this.rows + i; if (top.cells[at]) call(top.keys[at], top.cells[at]); } }, all: false, count: top.count };
    return null;
  }
  async valueSizes() {
    return SHELF.later(this.id + "values", async () => {
      if (this.values === undefined) return null;
      const all = new Float32Array((await inflate(bytesOf(this.values))).buffer);
      return this.heads.map((_, i) => all.subarray(i * this.columns, (i + 1) * this.columns));
    });
  }
  async vectors(key) {
    return SHELF.later(this.id + "vectors" + key, async () => {
      const found = this.details[key];
      if (!found) return null;
      const read = async (name, count, size) => {
        if (found[name] === undefined) return null;
        const bytes = await inflate(bytesOf(found[name]));
        return { scales: new Float32Array(bytes.buffer, 0, count), bytes: new Int8Array(bytes.buffer, 4 * count), size };
      };
      const { rows, columns } = this, bias = found.bias;
      return {
        q: await read("q", rows, found.size), k: await read("k", columns, found.size),
        v: await read("v", columns, found.valueSize),
        plainQ: await read("plainQ", rows, found.size), plainK: await read("plainK", columns, found.size),
        sums: new Float32Array((await inflate(bytesOf(found.sums))).buffer),
        bias: bias && (bias.distances ?? bias.table) !== undefined
          ? new Float32Array((await inflate(bytesOf(bias.distances ?? bias.table))).buffer) : null,
        byDistance: !!(bias && bias.distances !== undefined), hasBias: !!bias, size: found.size,
      };
    });
  }
}

const vector = (stored, i) => {
  const out = new Float32Array(stored.size);
  for (let d = 0; d < stored.size; d++) out[d] = stored.bytes[i * stored.size + d] * stored.scales[i];
  return out;
};
const weightOf = byte => (byte / 255) ** 2;

class ModelData {
  constructor(described, id) {
    Object.assign(this, described);
    this.id = id;
    this.chapters = described.chapters.map((each, i) => new Chapter(this, each, "m" + id + "c" + i + "/"));
  }
  async lensTable() {
    return SHELF.later("lens" + this.id, async () => {
      if (!this.lens) return null;
      const bytes = await inflate(bytesOf(this.lens.blob)), size = this.lens.layers * this.words.length * this.lens.count;
      const ids = new Int32Array(bytes.buffer, 0, size), cells = bytes.subarray(4 * size);
      return (layer, place, n) => {
        const at = (layer * this.words.length + place) * this.lens.count + n;
        return { word: this.lens.words[ids[at]], p: weightOf(cells[at]) };
      };
    });
  }
}
const MODELS = INDEX.models.map((each, i) => new ModelData(each, i));

// A word as it is shown: blanks and signs that steer the text are made visible. It is only ever set as text.
function shown(word) {
  return word.replace(/^ +/, blanks => "·".repeat(blanks.length)).replace(/\n/g, "⏎").replace(/\t/g, "⇥")
    .replace(/[\u0000-\u001f]/g, c => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff]/g, "\ufffd") || "∅";
}
const number = (value, digits = 3) => value == null || Number.isNaN(value) ? "–" : Math.abs(value) >= 1000 ? value.toFixed(0) : value.toFixed(digits);
function useLoaded(make, keys) {
  const [value, set] = useState(undefined);
  useEffect(() => {
    let alive = true;
    set(undefined);
    make().then(found => alive && set(() => found), () => alive && set(() => null));
    return () => { alive = false; };
  }, keys);
  return value;
}
// Draws again when something that was waited for has come.
function useArrivals() {
  const [, set] = useState(0);
  useEffect(() => {
    let asked = 0;
    const tell = () => { asked = asked || requestAnimationFrame(() => { asked = 0; set(n => n + 1); }); };
    SHELF.listeners.add(tell);
    return () => { SHELF.listeners.delete(tell); cancelAnimationFrame(asked); };
  }, []);
}
