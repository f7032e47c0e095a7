// Loaded before Azurite: the time is what the last line of its input says, in milliseconds.
const Clock = Date;
let now = Clock.now();

globalThis.Date = class extends Clock {
  constructor(...parts) {
    super(...(parts.length ? parts : [now]));
  }
  static now() {
    return now;
  }
};

require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  now = Number(line);
  console.log(`now ${line}`);
}).on("close", () => process.exit());
