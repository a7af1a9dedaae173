// Pictures out: what the view shows, as SVG or PNG.
function saveAs(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
const SCENES = new Map(); // view's id -> a function that makes its scene
const useScene = (id, make) => { useEffect(() => { SCENES.set(id, make); return () => { if (SCENES.get(id) === make) SCENES.delete(id); }; }); };
async function exported(kind, theme, name) {
  let across = 0, high = 0;
  const items = [], scenes = [...SCENES.entries()].sort((a, b) => (a[0] < b[0] ? -1 : 1)).map(each => each[1]());
  for (const scene of (await Promise.all(scenes)).filter(Boolean)) {
    for (const item of scene.items) {
      const moved = { ...item };
      if (item.rect) moved.rect = [item.rect[0] + across, ...item.rect.slice(1)];
      if (item.line) moved.line = [item.line[0] + across, item.line[1], item.line[2] + across, item.line[3]];
      if (item.text !== undefined) moved.x = item.x + across;
      items.push(moved);
    }
    across += scene.width + 24; high = Math.max(high, scene.height);
  }
  if (!across) return null;
  const scene = { width: across - 24, height: high, items };
  if (kind === "svg") { const text = sceneAsSvg(scene, theme); saveAs(new Blob([text], { type: "image/svg+xml" }), name + ".svg"); return text; }
  const blob = await new Promise(done => drawScene(scene, theme).toBlob(done, "image/png"));
  saveAs(blob, name + ".png");
  return blob;
}
window.explorer = { exported, models: MODELS, scenes: SCENES };
