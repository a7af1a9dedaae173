// Drawing: sharp canvases of the size of their box, and scenes that can be drawn, or written as SVG.
function fit(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1, w = Math.max(1, Math.round(width * ratio)), h = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  return c;
}
function useSize(ref) {
  const [size, set] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const watch = new ResizeObserver(() => {
      if (ref.current) set({ width: ref.current.clientWidth, height: ref.current.clientHeight });
    });
    watch.observe(ref.current);
    set({ width: ref.current.clientWidth, height: ref.current.clientHeight });
    return () => watch.disconnect();
  }, []);
  return size;
}
function paint(canvas, cells, rows, columns, colours, factors) {
  canvas.width = columns; canvas.height = rows;
  const c = canvas.getContext("2d"), image = c.createImageData(columns, rows), out = new Uint32Array(image.data.buffer);
  if (factors) for (let i = 0, at = 0; i < rows; i++) for (let j = 0; j < columns; j++, at++) out[at] = colours[Math.min(255, Math.round(cells[at] * factors[j]))];
  else for (let i = 0; i < out.length; i++) out[i] = colours[cells[i]];
  c.putImageData(image, 0, 0);
}
// A scene: {width, height, items: [{rect} | {line} | {text}]}.
function drawScene(scene, theme) {
  const canvas = document.createElement("canvas"), scale = Math.min(2, 8000 / Math.max(scene.width, scene.height));
  canvas.width = Math.ceil(scene.width * scale); canvas.height = Math.ceil(scene.height * scale);
  const c = canvas.getContext("2d");
  c.scale(scale, scale);
  c.fillStyle = PAPER[theme]; c.fillRect(0, 0, scene.width, scene.height);
  for (const item of scene.items) {
    c.globalAlpha = item.alpha ?? 1;
    if (item.rect) { c.fillStyle = item.colour; c.fillRect(...item.rect); }
    if (item.line) { const [x1, y1, x2, y2] = item.line; c.strokeStyle = item.colour; c.lineWidth = item.width || 1; c.beginPath(); c.moveTo(x1, y1); curve(c, item.line, item.bend); c.stroke(); }
    if (item.text !== undefined) {
      c.save(); c.translate(item.x, item.y); if (item.turn) c.rotate(item.turn * Math.PI / 180);
      c.fillStyle = item.colour; c.font = `${item.size || 12}px system-ui, sans-serif`; c.textAlign = item.anchor === "end" ? "right" : item.anchor === "middle" ? "center" : "left";
      c.fillText(item.text, 0, 0); c.restore();
    }
  }
  return canvas;
}
function curve(c, [x1, y1, x2, y2], bend) {
  if (bend) c.bezierCurveTo(x1 + (x2 - x1) * bend, y1, x2 - (x2 - x1) * bend, y2, x2, y2); else c.lineTo(x2, y2);
}
const safe = text => String(text).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ud800-\udfff\ufffe\uffff]/gu, "\ufffd")
  .replace(/[&<>"']/g, c => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);
function sceneAsSvg(scene, theme) {
  const n = x => +x.toFixed(2), parts = [];
  for (const item of scene.items) {
    const alpha = item.alpha === undefined ? "" : ` opacity="${n(item.alpha)}"`;
    if (item.rect) parts.push(`<rect x="${n(item.rect[0])}" y="${n(item.rect[1])}" width="${n(item.rect[2])}" height="${n(item.rect[3])}" fill="${safe(item.colour)}"${alpha}/>`);
    if (item.line) {
      const [x1, y1, x2, y2] = item.line.map(n), b = item.bend;
      const d = b ? `M${x1} ${y1}C${n(x1 + (x2 - x1) * b)} ${y1} ${n(x2 - (x2 - x1) * b)} ${y2} ${x2} ${y2}` : `M${x1} ${y1}L${x2} ${y2}`;
      parts.push(`<path d="${d}" fill="none" stroke="${safe(item.colour)}" stroke-width="${n(item.width || 1)}"${alpha}/>`);
    }
    if (item.text !== undefined) {
      const turn = item.turn ? ` transform="rotate(${n(item.turn)} ${n(item.x)} ${n(item.y)})"` : "";
      const anchor = item.anchor ? ` text-anchor="${item.anchor}"` : "";
      parts.push(`<text x="${n(item.x)}" y="${n(item.y)}" font-size="${item.size || 12}" fill="${safe(item.colour)}"${anchor}${turn}${alpha}>${safe(item.text)}</text>`);
    }
  }
  return `<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="${n(scene.width)}" height="${n(scene.height)}" viewBox="0 0 ${n(scene.width)} ${n(scene.height)}" font-family="system-ui, sans-serif"><title>${safe(scene.title || INDEX.title)}</title>\n<rect width="100%" height="100%" fill="${PAPER[theme]}"/>\n${parts.join("\n")}\n</svg>\n`;
}
