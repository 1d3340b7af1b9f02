// What keeps a person from using the page as it is shown now, one line each: an own
// small checker, so that nothing is fetched.
(() => {
	const found = [];
	const say = (what, e) => found.push(`${what}: ${e.outerHTML.slice(0, 120)}`);
	const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest("[aria-hidden=true]");
	const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
	const named = (e) => {
		const by = e.getAttribute("aria-labelledby");
		return (e.getAttribute("aria-label") || by && document.getElementById(by)?.textContent || e.textContent || e.title || "").trim();
	};

	if (!document.documentElement.lang) found.push("no language");
	if (!document.title) found.push("no title");
	for (const [selector, n] of [["main", 1], ["header", 1], ["nav", 1], ["h1", 1]]) {
		const there = document.querySelectorAll(`body > ${selector}, header > ${selector}, main > ${selector}, main > section > div > ${selector}`).length;
		if (there < n) found.push(`no ${selector}`);
	}
	if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
	for (const e of all("nav")) if (!e.getAttribute("aria-label")) say("a landmark without a name", e);

	let level = 0;
	for (const e of all("main h1, main h2, main h3, main h4")) {
		const n = Number(e.tagName[1]);
		if (n > level + 1) say(`a heading of level ${n} after ${level}`, e);
		level = n;
	}
	for (const e of all("input, select, textarea")) {
		if (!e.labels?.length && !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby")) say("a field without a label", e);
	}
	for (const e of all("img")) if (!e.hasAttribute("alt")) say("a picture without a text", e);
	for (const e of document.querySelectorAll("svg")) {
		if (seen(e) && e.getAttribute("role") === "img" ? !named(e) : e.getAttribute("role") !== "img" && !e.closest("[aria-hidden=true]")) say("a drawing that is neither named nor hidden", e);
	}
	for (const e of all("button, a[href], summary, [role=button]")) if (!named(e)) say("a control without a name", e);
	for (const e of all("progress")) if (!named(e) && !e.labels.length) say("a progress without a name", e);
	for (const e of all("dialog")) if (!named(e)) say("a dialog without a name", e);
	for (const e of all("table")) if (!e.querySelector("th")) say("a table without headings", e);
	for (const e of all("[tabindex]")) if (e.tabIndex > 0) say("an order of its own", e);
	const ids = new Set();
	for (const e of document.querySelectorAll("[id]")) {
		if (ids.has(e.id)) say("an id twice", e);
		ids.add(e.id);
	}
	if (!document.querySelector("[aria-live]")) found.push("nothing is told to who listens");

	// Contrast of text, from computed colours.
	const rgb = (color) => {
		const m = /^rgba?\((\d+), (\d+), (\d+)(?:, ([\d.]+))?\)$/.exec(color);
		return m ? [Number(m[1]), Number(m[2]), Number(m[3]), m[4] === undefined ? 1 : Number(m[4])] : null;
	};
	const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
	const ground = (e) => {
		for (; e; e = e.parentElement) {
			const c = rgb(getComputedStyle(e).backgroundColor);
			if (c && c[3] === 1) return c;
		}
		return [255, 255, 255, 1];
	};
	const modal = document.querySelector("dialog[open]");
	const texts = document.createTreeWalker(modal ?? document.body, NodeFilter.SHOW_TEXT);
	const told = new Set();
	while (texts.nextNode()) {
		const e = texts.currentNode.parentElement;
		if (!texts.currentNode.data.trim() || !seen(e) || e.disabled || e.closest(".unseen, .skip, script, [disabled]")) continue;
		const style = getComputedStyle(e);
		const fore = rgb(e instanceof SVGElement ? style.fill : style.color), back = ground(e);
		if (!fore) continue;
		const [a, b] = [light(fore), light(back)].sort((x, y) => y - x);
		const ratio = (a + .05) / (b + .05);
		const key = `${style.color}${back}`;
		if (ratio < 4.5 && !told.has(key)) {
			told.add(key);
			say(`contrast ${ratio.toFixed(2)}`, e);
		}
	}
	if (document.documentElement.scrollWidth > innerWidth + 1) { found.push(`wider than the window: ${document.documentElement.scrollWidth} > ${innerWidth}`); for (const e of all("main *")) if (e.getBoundingClientRect().right > innerWidth) say(`${e.getBoundingClientRect().left}..${e.getBoundingClientRect().right} ${getComputedStyle(e).gridTemplateColumns}`, e); };
	return found;
})()
