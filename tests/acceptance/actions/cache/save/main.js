const { call, input } = require("../client.js");

call("saveFolder", input("key"), input("path"));
