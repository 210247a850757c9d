// A page that is opened again when there is no answer: what does its web provider show of what it has kept?
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature } from '@openfeature/web-sdk';

const stored = new Map();
globalThis.localStorage = {
  getItem: (key) => stored.get(key) ?? null,
  setItem: (key, value) => stored.set(key, value),
  removeItem: (key) => stored.delete(key),
};

async function open(fetchImplementation) {
  const provider = new OFREPWebProvider({ baseUrl: 'http://shop.example', cacheMode: 'network-first', fetchImplementation });
  await OpenFeature.setProviderAndWait(provider).catch(() => {});
  console.log(JSON.stringify(OpenFeature.getClient().getStringDetails(process.env.FLAG, 'none')));
  await OpenFeature.clearProviders();
}

const at = (gateway) => (request, options) => fetch(new Request(gateway + new URL(request.url).pathname, request), options);
const failure = async () =>
  new Response('{"errorCode": "GENERAL"}', { status: 500, headers: { 'content-type': 'application/json' } });

await OpenFeature.setContext({ targetingKey: 'user-7' });
await open(at(process.env.GATEWAY));
await open(at(process.env.EMPTY_GATEWAY));
await open(failure);
