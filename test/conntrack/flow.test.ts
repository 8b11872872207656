/** Lines of `conntrack -L`, as versions 1.4.6 to 1.4.8 print them. */
import { describe, expect, test } from 'vitest';
import { parseFlow } from '../../src/conntrack/flow.ts';

const DNS = {
  source: '10.244.1.14',
  sourcePort: 40_000,
  destination: '10.96.0.10',
  destinationPort: 53,
  replySource: '10.244.1.1',
  replySourcePort: 20_001,
};

describe('a line of the dump is a flow and where it was led', () => {
  test.each<{ name: string; line: string; flow: object | undefined }>([
    {
      name: 'UDP without a reply',
      line: 'udp      17 29 src=10.244.1.14 dst=10.96.0.10 sport=40000 dport=53 [UNREPLIED] src=10.244.1.1 dst=10.244.1.14 sport=20001 dport=40000 mark=0 use=1',
      flow: DNS,
    },
    {
      name: 'UDP with replies, counted',
      line: 'udp      17 118 src=10.244.1.14 dst=10.96.0.10 sport=40000 dport=53 packets=4 bytes=212 src=10.244.1.1 dst=10.244.1.14 sport=20001 dport=40000 packets=4 bytes=300 [ASSURED] mark=0 secctx=system_u:object_r:unlabeled_t:s0 use=1',
      flow: DNS,
    },
    {
      name: 'TCP that nobody has answered',
      line: 'tcp      6 119 SYN_SENT src=fd00:244:1::14 dst=fd00:96::a sport=40000 dport=80 [UNREPLIED] src=fd00:244:1::1 dst=fd00:244:1::14 sport=20002 dport=40000 mark=0 use=1',
      flow: {
        source: 'fd00:244:1::14',
        sourcePort: 40_000,
        destination: 'fd00:96::a',
        destinationPort: 80,
        replySource: 'fd00:244:1::1',
        replySourcePort: 20_002,
      },
    },
    {
      name: 'of another zone: none of ours',
      line: 'udp      17 29 src=10.244.1.14 dst=10.96.0.10 sport=40000 dport=53 [UNREPLIED] src=10.96.0.10 dst=10.244.1.14 sport=53 dport=40000 mark=0 zone=7 use=1',
      flow: undefined,
    },
    {
      name: 'without ports: none of ours',
      line: 'icmp     1 29 src=10.244.1.14 dst=10.96.0.10 type=8 code=0 id=1 [UNREPLIED] src=10.96.0.10 dst=10.244.1.14 type=0 code=0 id=1 mark=0 use=1',
      flow: undefined,
    },
    { name: 'nothing', line: '', flow: undefined },
  ])('$name', ({ line, flow }) => {
    expect(parseFlow(line)).toEqual(flow);
  });
});
