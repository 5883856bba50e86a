// The step's inputs, checked.
//
// Law: pure. `with:` in, a frozen value out, or an InputError that names every mistake at once.

const MODES = ["enforce", "audit"];
const JOURNALS = ["always", "on-denial", "never"];
const KNOWN = [
  "policy", "policy-file", "mode", "presets", "upstream", "allow-sudo", "allow-containers", "fail-on-deny", "journal",
  "summary", "version",
];

export class InputError extends Error {}

/** Reads the INPUT_* variables of `env`; `ours` is the version of this very action. */
export function readInputs(env, ours) {
  const given = new Map(
    Object.entries(env)
      .filter(([name]) => name.startsWith("INPUT_"))
      .map(([name, value]) => [name.slice("INPUT_".length).toLowerCase(), value]),
  );
  const mistakes = [...given.keys()]
    .filter((name) => !KNOWN.includes(name))
    .map((name) => `${name}: there is no such input. There are: ${KNOWN.join(", ")}.`);
  const text = (name) => (given.get(name) ?? "").trim();
  const inputs = {
    policy: given.get("policy")?.trim() ? given.get("policy") : "",
    policyFile: text("policy-file"),
    mode: oneOf("mode", text("mode") || "enforce", MODES, mistakes),
    presets: words("presets", text("presets"), /^[a-z0-9][a-z0-9-]*$/, mistakes),
    upstream: words("upstream", text("upstream"), /^[\w.:[\]#/-]+$/, mistakes),
    allowSudo: boolean("allow-sudo", text("allow-sudo"), mistakes),
    allowContainers: boolean("allow-containers", text("allow-containers"), mistakes),
    failOnDeny: boolean("fail-on-deny", text("fail-on-deny"), mistakes),
    journal: oneOf("journal", text("journal") || "on-denial", JOURNALS, mistakes),
    summary: boolean("summary", text("summary") || "true", mistakes),
  };
  mistakes.push(...contradictions(inputs), ...wrongVersion(text("version"), ours));
  if (mistakes.length > 0) {
    throw new InputError(mistakes.join("\n"));
  }
  return Object.freeze(inputs);
}

function contradictions(inputs) {
  const found = [];
  if (inputs.policy && inputs.policyFile) {
    found.push("policy and policy-file contradict each other: give one of them.");
  }
  if (!inputs.policy && !inputs.policyFile && inputs.mode === "enforce") {
    found.push("policy: nothing says what may leave. Give policy or policy-file; or begin with mode: audit.");
  }
  if (inputs.mode === "audit" && inputs.failOnDeny) {
    found.push("fail-on-deny contradicts mode: audit, in which nothing is denied.");
  }
  return found;
}

function wrongVersion(wanted, ours) {
  return wanted === "" || wanted.replace(/^v/, "") === ours
    ? []
    : [`version: this is ${ours}, not ${wanted}. The version is chosen by \`uses: …@v${wanted.replace(/^v/, "")}\`.`];
}

function oneOf(name, value, choices, mistakes) {
  if (!choices.includes(value)) {
    mistakes.push(`${name}: ${JSON.stringify(value)} is none of ${choices.join(", ")}.`);
  }
  return value;
}

/** YAML's own words for it, as they arrive in a variable. */
function boolean(name, value, mistakes) {
  if (!/^(true|false|)$/i.test(value)) {
    mistakes.push(`${name}: ${JSON.stringify(value)} is neither true nor false.`);
  }
  return /^true$/i.test(value);
}

function words(name, value, shape, mistakes) {
  const found = value.split(/[\s,]+/).filter(Boolean);
  for (const word of found.filter((word) => !shape.test(word))) {
    mistakes.push(`${name}: ${JSON.stringify(word)} can't be one.`);
  }
  return Object.freeze(found);
}
