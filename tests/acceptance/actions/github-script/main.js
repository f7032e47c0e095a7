// As the real one does: the script sees `core`, of which it is given what it uses.
const { appendFileSync, readFileSync } = require("node:fs");

const { env } = process;
Object.assign(env, JSON.parse(readFileSync(env.STAND_IN_SERVICE, "utf8")));

const core = {
  setSecret: (value) => console.log(`::add-mask::${value}`),
  setOutput: (name, value) => appendFileSync(env.GITHUB_OUTPUT, `${name}<<@end@\n${value ?? ""}\n@end@\n`),
};

new Function("core", env.INPUT_SCRIPT)(core);
