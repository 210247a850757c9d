// Keeps the flags of a page with OpenFeature's web SDK, and says what it polls and what it sees change.
import { OFREPWebProvider } from '@openfeature/ofrep-web-provider';
import { OpenFeature, ProviderEvents } from '@openfeature/web-sdk';

const baseUrl = process.env.GATEWAY;
const flag = process.env.FLAG;
const say = (said) => console.log(JSON.stringify(said));
const flags = () => ({
  flag: OpenFeature.getClient().getStringDetails(flag, 'none'),
  sure: OpenFeature.getClient().getStringDetails('sure', 'none'),
  unheard: OpenFeature.getClient().getStringDetails('unheard', 'none'),
});

async function telling(request, options) {
  const response = await fetch(request, options);
  say({ status: response.status, etag: response.headers.get('etag'), sent: request.headers.get('if-none-match') });
  return response;
}

OpenFeature.addHandler(ProviderEvents.ConfigurationChanged, (event) =>
  say({ changed: event.flagsChanged, ...flags() }),
);
await OpenFeature.setContext({ targetingKey: 'user-7', country: 'DE' });
await OpenFeature.setProviderAndWait(
  new OFREPWebProvider({ baseUrl, pollInterval: 50, cacheMode: 'disabled', fetchImplementation: telling }),
);
say({ ready: true, ...flags() });

process.stdin.on('end', () => OpenFeature.close()).on('data', async (line) => {
  await OpenFeature.setContext({ targetingKey: line.toString().trim(), country: 'DE' });
  say({ moved: true, ...flags() });
});
