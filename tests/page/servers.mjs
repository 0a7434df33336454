// Starts the servers that the tests want, runs a command with their addresses in its environment, and stops them:
//
//     DWINDLE=/path/to/dwindle node servers.mjs COMMAND …
//
// Without DWINDLE the command runs alone, and the tests start the mock. DWINDLE_BUNDLE and DWINDLE_BLIND_BUNDLE name other
// bundles than the built-in demo and the demo's text model.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/** How the real server is started: the only place that knows its flags. */
const SERVERS = [
  { variable: "DWINDLE_URL", args: ["serve", ...bundle("DWINDLE_BUNDLE"), "--port", "0"] },
  { variable: "DWINDLE_BLIND_URL", args: ["serve", ...bundle("DWINDLE_BLIND_BUNDLE", demo("pocket-gemma")), "--port", "0"] },
  { variable: "DWINDLE_LAN_URL", args: ["serve", ...bundle("DWINDLE_BUNDLE"), "--lan", "--port", "0"], address: /https?:\/\/\S+\/pair\?token=[^\s"]+/ },
];
/** The server prints its address once it listens, on stdout or stderr. */
const ADDRESS = /https?:\/\/[\w.[\]:-]+/;
const PATIENCE_MS = 120_000;

/** @param {string} variable @param {string} [otherwise] */
function bundle(variable, otherwise) {
  const path = process.env[variable] ?? otherwise;
  return path ? [path] : [];
}

/** @param {string} name */
function demo(name) {
  return fileURLToPath(new URL(`../../demo/${name}`, import.meta.url));
}

/**
 * Starts a server and waits for its address.
 * @param {string} program
 * @param {{variable: string, args: string[], address?: RegExp}} server
 */
async function start(program, { variable, args, address = ADDRESS }) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  const url = await new Promise((resolve, reject) => {
    const fail = (reason) => reject(new Error(`\`${program} ${args.join(" ")}\` ${reason}:\n${output}`));
    const timer = setTimeout(() => fail("printed no address in two minutes"), PATIENCE_MS);
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (piece) => {
        output = (output + piece).slice(-20_000);
        const match = address.exec(output);
        // A whole line, not its first half.
        if (!match || !/\s/.test(output.slice(match.index + match[0].length))) return;
        clearTimeout(timer);
        resolve(match[0].replace(/\/$/, ""));
      });
    }
    child.on("error", (error) => fail(`did not start (${error.message})`));
    child.on("exit", (code) => fail(`ended with ${code}`));
  }).catch((error) => {
    child.kill();
    throw error;
  });
  return { child, variable, url };
}

const [command, ...args] = process.argv.slice(2);
const running = [];
let code = 1;
try {
  const env = { ...process.env };
  if (process.env.DWINDLE) {
    for (const server of SERVERS) {
      const started = await start(process.env.DWINDLE, server);
      running.push(started);
      env[started.variable] = started.url;
      console.log(`${started.variable}=${started.url}`);
    }
  }
  const child = spawn(command, args, { stdio: "inherit", env });
  [code] = await once(child, "exit");
} catch (error) {
  console.error(error.message);
}
for (const { child } of running) child.kill();
process.exitCode = code ?? 1;
