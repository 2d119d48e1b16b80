// Asks a daemon through both Redis clients for Node: node resp_client.js PORT [TOKEN]. Prints ok, or fails.

const assert = require('node:assert');
const { createClient } = require('redis');
const { Redis } = require('ioredis');

const [port, token] = [Number(process.argv[2]), process.argv[3]];

async function nodeRedis(protocol) {
  const client = createClient({ RESP: protocol, password: token, name: 'js', socket: { port } });
  client.on('error', (error) => { throw error; });
  await client.connect();
  assert.equal(await client.ping(), 'PONG');
  const key = `js${protocol}`;
  const check = () => client.sendCommand(['CL.THROTTLE', key, '2', '1', '3600']);
  assert.deepEqual(await check(), [0, 3, 2, -1, 3600]);
  // sent at once, so they are one pipeline
  const answers = await Promise.all([check(), check(), check()]);
  assert.deepEqual(answers.map((a) => a[0]), [0, 0, 1]);
  await assert.rejects(client.sendCommand(['SPILLGATE.CHECK', 'nowhere', key]), /known are api/);
  await client.close();
}

async function ioredis() {
  const client = new Redis({ port, password: token });
  assert.equal(await client.echo('hello'), 'hello');
  const pipeline = client.pipeline();
  for (let i = 0; i < 4; i += 1) pipeline.call('THROTTLE', 'io', 3, 1, 3600);
  const answers = await pipeline.exec();
  assert.deepEqual(answers.map(([error, answer]) => (error ? error.message : answer[0])), [1, 1, 1, 0]);
  const answer = await client.call('SPILLGATE.CHECK', 'api', 'io', 'WAIT', 10);
  assert.deepEqual(answer.slice(0, 4), ['allowed', 1, 'limit', 'api']);
  await client.quit();
}

nodeRedis(2)
  .then(() => nodeRedis(3))
  .then(ioredis)
  .then(() => console.log('ok'))
  .catch((error) => { console.error(error); process.exit(1); });
