// A report as Markdown for the job's page, and as annotations.
//
// Law: pure text. Whatever a process or a name brought in is shown as code, so that it is no Markdown and no HTML.
// The report's shape is docs/report.schema.json.

const SHOWN = 50; // rows of each table; the journal has them all
const ANNOTATED = 10; // GitHub shows no more of one kind in a step

/** Markdown, of a report whose signature was right. */
export function summary(report) {
  return [
    `## ${verdict(report)}`,
    "",
    ...standing(report),
    ...denied(report),
    ...reached(report),
    ...report.trouble.map((sentence) => `> [!WARNING]\n> ${code(sentence)}\n`),
  ].join("\n");
}

/** One line for people who read only one. */
export function verdict(report) {
  const verb = report.mode === "audit" ? "would have been denied" : "denied";
  return `dnsfw: ${report.denied || "nothing"} ${verb}, ${report.allowed} allowed`;
}

/** `{title, text}` for the most frequent denials. */
export function annotations(report) {
  const verb = report.mode === "audit" ? "Would have been denied" : "Denied";
  return report.denials.slice(0, ANNOTATED).map((row) => ({
    title: `${verb}: ${row.what}`,
    text: [`by ${row.process}${inStep(row)}`, row.why, row.remedy && `to allow it: ${row.remedy}`]
      .filter(Boolean)
      .join("\n"),
  }));
}

function inStep(row) {
  const of = row.step || row.action;
  return of ? `, step ${of}` : "";
}

function standing(report) {
  const gaps = report.gaps.map(
    ({ reason, seconds, closed }) =>
      `- down for ${seconds.toFixed(1)} s (${code(reason)}), ${closed ? "closed" : "**open**"} meanwhile`,
  );
  return [
    gaps.length === 0 ? "The guard was up without a gap." : `The guard was up with ${several(gaps.length, "gap")}:`,
    ...gaps,
    "",
    `<sub>${report.mode} · from ${report.since} to ${report.until} · policy SHA-256 \`${report.policy}\` · ` +
      "statement signed by the guard</sub>",
    "",
  ];
}

function denied(report) {
  if (report.denials.length === 0) {
    return [];
  }
  const rows = report.denials.slice(0, SHOWN).map((row) => [
    `${code(row.what)}${row.count > 1 ? ` ×${row.count}` : ""}`,
    code(row.step || row.action || "–"),
    code(row.process),
    code(row.why),
    row.remedy ? code(row.remedy) : "–",
  ]);
  const title = report.mode === "audit" ? "Would have been denied" : "Denied";
  return [`### ${title}`, "", ...table(["What", "Step", "Process", "Why", "The line that would allow it"], rows),
    ...more(report.denials.length), ""];
}

function reached(report) {
  const rows = report.reached.slice(0, SHOWN).map((row) => [code(row.host), String(row.count)]);
  if (rows.length === 0) {
    return [];
  }
  return ["<details><summary>Reached</summary>", "", ...table(["Host", "Connections"], rows),
    ...more(report.reached.length), "", "</details>", ""];
}

function more(rows) {
  return rows > SHOWN ? ["", `… and ${rows - SHOWN} more; the journal has them all.`] : [];
}

function table(head, rows) {
  return [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
}

/** Text as HTML code: within it GitHub reads neither Markdown nor tags, and a `|` ends no cell. What can't be seen, or
 * turns the direction of what can, is spelled out. */
function code(text) {
  const visible = text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  const harmless = visible.replace(
    /[^\p{L}\p{N} ./,;=()+?%~-]|(?<=www)\./giu, // _ and * too: they are Markdown even inside of a tag; and no links
    (c) => `&#${c.codePointAt(0)};`,
  );
  return `<code>${harmless}</code>`;
}

function several(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
