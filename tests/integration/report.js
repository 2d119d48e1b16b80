// What is seen of a report: run in its page by report.rs.
(() => {
  const colour = (text) => {
    const parts = (text.match(/[\d.]+/g) ?? []).map(Number);
    return parts.length < 3 || parts[3] === 0 ? null : parts;
  };
  // relative luminance, WCAG 2
  const luminance = (parts) => {
    const [r, g, b] = parts.slice(0, 3).map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const ground = luminance(colour(getComputedStyle(document.body).backgroundColor));
  const ink = (style) => {
    const stroke = parseFloat(style.strokeWidth) > 0 && style.stroke !== "none" && colour(style.stroke);
    const fill = style.fill !== "none" && parseFloat(style.fillOpacity) > 0.1 && colour(style.fill);
    return [stroke, fill].filter(Boolean);
  };
  const within = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  const meet = (a, b) => a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 0.5 && b.top < a.bottom - 0.5;

  const plot = (svg) => {
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map((text) => ({ text: text.textContent, box: text.getBoundingClientRect(), size: parseFloat(getComputedStyle(text).fontSize) }));
    const clashes = texts.filter((t) => !within(t.box, frame)).map((t) => `${t.text} sticks out`);
    texts.forEach((a, i) => texts.slice(i + 1).forEach((b) => meet(a.box, b.box) && clashes.push(`${a.text} on ${b.text}`)));
    const drawn = [], unseen = [];
    for (const mark of svg.querySelectorAll("polyline, polygon, rect")) {
      const box = mark.getBoundingClientRect();
      const seen = ink(getComputedStyle(mark)).some((parts) => contrast(luminance(parts), ground) > 1.15);
      const large = box.width + box.height >= 1 && box.width > 0;
      (seen && large && within(box, frame) ? drawn : unseen).push(mark.getAttribute("class"));
    }
    const scale = frame.width / svg.viewBox.baseVal.width;
    return {
      title: svg.querySelector("title").textContent, wide: frame.width, tall: frame.height,
      letters: Math.min(...texts.map((t) => t.size)) * scale, texts: texts.map((t) => t.text), clashes, drawn, unseen,
    };
  };

  const words = [...document.querySelectorAll("h1, h2, h3, p, small, th, td, b, svg text")].filter((e) => e.getClientRects().length > 0);
  const shades = words.map((e) => { const style = getComputedStyle(e); return colour(e.closest("svg") ? style.fill : style.color); });
  const table = document.querySelector("table"), first = document.querySelector("svg");
  return {
    wide: document.documentElement.scrollWidth,
    rows: [...table.querySelectorAll("tbody tr:not(.scenario)")].map((row) => row.innerText),
    scenarios: [...table.querySelectorAll("tr.scenario")].map((row) => row.textContent),
    table_first: Boolean(table.compareDocumentPosition(first) & Node.DOCUMENT_POSITION_FOLLOWING),
    light: ground,
    contrast: Math.min(...shades.map((parts) => contrast(luminance(parts), ground))),
    plots: [...document.querySelectorAll("svg")].map(plot),
  };
})()
