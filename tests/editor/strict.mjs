// Compiles JSON Schemas in ajv's strict mode, which refuses what is ambiguous or probably a mistake.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [packages, ...schemas] = process.argv.slice(2);
const Ajv = createRequire(`${packages}/`)("ajv/dist/2020").default;
for (const path of schemas) {
  new Ajv({ strict: true }).compile(JSON.parse(readFileSync(path, "utf8")));
  console.log(path);
}
