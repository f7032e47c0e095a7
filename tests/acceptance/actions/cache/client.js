// Runs GitHub's own client, as the real action does, with the variables that a runner gives to
// actions alone.
const { execFileSync } = require("node:child_process");
const { readFileSync } = require("node:fs");

const { env } = process;

exports.input = (name) => env[`INPUT_${name.toUpperCase()}`] ?? "";

exports.call = (...values) => {
  const service = JSON.parse(readFileSync(env.STAND_IN_SERVICE, "utf8"));
  const told = execFileSync(process.execPath, [env.STAND_IN_CLIENT, ...values], {
    env: { ...env, ...service },
    encoding: "utf8",
  });
  console.log(told);
};
