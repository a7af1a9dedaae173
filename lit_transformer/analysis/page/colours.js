// Colours: a ramp for weights in each theme, and one colour for each head that is chosen.
const RAMPS = {
  light: [[0, "#fbfbf9"], [0.15, "#dbe6f1"], [0.4, "#86aed1"], [0.7, "#2a6aa8"], [1, "#0a2a4d"]],
  dark: [[0, "#14171c"], [0.15, "#2a2b45"], [0.4, "#7a3a6d"], [0.7, "#e0704f"], [1, "#ffe9a8"]],
};
const HEAD_COLOURS = {
  light: ["#1f6fb4", "#c8501e", "#2b8a4e", "#8a4fbf", "#b8860b", "#c13a6b", "#0f8a8a", "#5d6470"],
  dark: ["#6db3f2", "#ff9463", "#74d394", "#c49bf0", "#f0c95a", "#f58ab4", "#5fd6d6", "#b4bcc8"],
};
const hex = text => [1, 3, 5].map(i => parseInt(text.slice(i, i + 2), 16));
const RAMP_TABLES = new Map();
// 256 colours as 32-bit numbers, for bytes as they are stored (255 times the root of the weight).
function table(theme, contrast) {
  const key = theme + contrast;
  if (!RAMP_TABLES.has(key)) {
    const out = new Uint32Array(256), bytes = new Uint8Array(out.buffer), stops = RAMPS[theme];
    for (let i = 0; i < 256; i++) {
      const x = Math.pow(i / 255, contrast);
      let n = 1;
      while (n < stops.length - 1 && stops[n][0] < x) n++;
      const [from, low] = stops[n - 1], [to, high] = stops[n], share = (x - from) / (to - from), a = hex(low), b = hex(high);
      for (let c = 0; c < 3; c++) bytes[4 * i + c] = a[c] + (b[c] - a[c]) * share;
      bytes[4 * i + 3] = 255;
    }
    RAMP_TABLES.set(key, out);
  }
  return RAMP_TABLES.get(key);
}
const css = (colours, byte) => { const v = colours[byte]; return `rgb(${v & 255},${(v >> 8) & 255},${(v >> 16) & 255})`; };
const headColour = (theme, i) => HEAD_COLOURS[theme][i % HEAD_COLOURS[theme].length];
const INK = { light: "#1c2430", dark: "#e7e9ee" }, FAINT = { light: "#8a93a0", dark: "#7d8694" }, PAPER = { light: "#ffffff", dark: "#0e1116" };
