const { call, input } = require("../client.js");

call("restoreFolder", input("key"), input("path"), input("restore-keys"));
