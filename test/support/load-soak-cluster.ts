/**
 * The Services of a soak: steady ones whose endpoints and affinity change, and passing ones that come, change their port
 * and go. Manifests only; what is served behind them is here too.
 */
import { clusterIP, dualStackObjects, type PortOptions } from './dual-stack.ts';
import type { Host, Lab } from './netns-lab.ts';
import { manifestText } from './objects.ts';

export const BACKENDS = 3;
/** What a client of the affinity Service is tied for. */
export const AFFINITY_SECONDS = 2;

export const WEB = { name: 'web', port: 80, targetPort: 8_080 } as const;
export const ID = { name: 'id', port: 81, targetPort: 8_081 } as const;
export const ECHO = { name: 'echo', port: 82, targetPort: 8_082 } as const;
export const SINK = { name: 'sink', port: 83, targetPort: 8_083 } as const;
export const RESET = { name: 'reset', port: 84, targetPort: 8_084 } as const;
export const ASK = { name: 'ask', port: 53, targetPort: 8_053, protocol: 'UDP' } as const;
export const ONE_WAY = { name: 'one-way', port: 54, targetPort: 8_054, protocol: 'UDP' } as const;

const STEADY = { name: 'steady', number: 42, ports: [WEB, ID, ECHO, SINK, RESET, ASK, ONE_WAY] } as const;
const TIED = { name: 'tied', number: 43, ports: [ID] } as const;
/** Passing Services take turns with so many clusterIPs, and never with a name. */
const PASSING = { number: 50, count: 10 } as const;

/** Sets of endpoints, by number; the last one is where a soak begins and ends. */
const ENDPOINTS = [
  [0, 1],
  [1, 2],
  [0, 2],
  [0, 1, 2],
] as const;

export const STEADY_IP = clusterIP(STEADY.number, 'IPv4');
export const TIED_IP = clusterIP(TIED.number, 'IPv4');

/** Everything that any of the Services leads to. */
export async function serveSoak(pods: readonly Host[]): Promise<void> {
  await Promise.all(
    pods.map(async (pod) => {
      const agent = await pod.agent();
      const { name } = pod;
      await agent.serveTcp({ port: WEB.targetPort, mode: 'http', name });
      await agent.serveTcp({ port: ID.targetPort, mode: 'identify', name });
      await agent.serveTcp({ port: ECHO.targetPort, mode: 'identify-echo', name });
      await agent.serveTcp({ port: SINK.targetPort, mode: 'sink-then-echo', name });
      await agent.serveTcp({ port: RESET.targetPort, mode: 'accept-reset', name });
      await agent.serveUdp({ port: ASK.targetPort, mode: 'identify', name });
      await agent.serveUdp({ port: ONE_WAY.targetPort, mode: 'sink', name });
    }),
  );
}

/** Manifests of a soak. `turn` counts changes; undefined is how things are at rest. */
export class SoakManifests {
  readonly #pods: readonly Host[];

  constructor(lab: Lab) {
    this.#pods = lab.pods.slice(0, BACKENDS);
  }

  get pods(): readonly Host[] {
    return this.#pods;
  }

  steady(turn?: number): string {
    return manifestText(...dualStackObjects({ ...STEADY, backends: this.#backends(turn) }));
  }

  /** ClientIP affinity is switched off in every other turn. */
  tied(turn?: number): string {
    const isOn = turn === undefined || turn % 2 === 0;
    const objects = dualStackObjects({
      ...TIED,
      backends: this.#backends(turn),
      tweak: ({ spec }) => {
        spec.sessionAffinity = isOn ? 'ClientIP' : 'None';
        if (isOn) spec.sessionAffinityConfig = { clientIP: { timeoutSeconds: AFFINITY_SECONDS } };
      },
    });
    return manifestText(...objects);
  }

  passing(passing: PassingService, port: number): string {
    const ports: readonly PortOptions[] = [
      { ...ID, port },
      { ...ASK, port },
    ];
    const { name, number } = passing;
    return manifestText(...dualStackObjects({ name, number, ports, backends: this.#pods }));
  }

  #backends(turn: number | undefined): readonly Host[] {
    const chosen = ENDPOINTS[(turn ?? ENDPOINTS.length - 1) % ENDPOINTS.length] ?? [];
    return chosen.flatMap((number) => this.#pods[number] ?? []);
  }
}

export interface PassingService {
  readonly name: string;
  readonly number: number;
  readonly host: string;
}

export function passingService(index: number): PassingService {
  const number = PASSING.number + (index % PASSING.count);
  return { name: `passing-${index}`, number, host: clusterIP(number, 'IPv4') };
}
