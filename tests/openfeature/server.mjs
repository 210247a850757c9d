// Evaluates flags with OpenFeature's server SDK, and says what comes of each.
import { OFREPProvider } from '@openfeature/ofrep-provider';
import { OpenFeature } from '@openfeature/server-sdk';

const baseUrl = process.env.GATEWAY;
const flag = process.env.FLAG;
const say = (said) => console.log(JSON.stringify(said));

await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl }));
await OpenFeature.setProviderAndWait(
  'forced',
  new OFREPProvider({ baseUrl, headers: [['Kingmaker-Force-Arm', 'gbm-v7']] }),
);
const client = OpenFeature.getClient();
const user = { targetingKey: 'user-7', country: 'DE', cart: { items: [1, 2] } };

say({ sticky: await client.getStringDetails(flag, 'none', user) });
say({ again: await client.getStringDetails(flag, 'none', user) });
say({ nobody: await client.getStringDetails(flag, 'none') });
say({ sure: await client.getStringDetails('sure', 'none', user) });
say({ forced: await OpenFeature.getClient('forced').getStringDetails('forced', 'none', user) });
say({ unheard: await client.getStringDetails('unheard', 'none', user) });
say({ wrongType: await client.getBooleanDetails(flag, false, user) });
say({ invalid: await client.getStringDetails(flag, 'none', { targetingKey: 7 }) });
await OpenFeature.close();
